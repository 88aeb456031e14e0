"""Tests of ``search.measuring``."""
