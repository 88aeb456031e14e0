"""Tests of ``search.several``."""
