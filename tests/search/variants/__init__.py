"""Tests of ``search.variants``."""
