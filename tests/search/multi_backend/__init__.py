"""Tests of ``search.multi_backend``."""
