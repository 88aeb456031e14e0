"""Tests of ``search.space``."""
