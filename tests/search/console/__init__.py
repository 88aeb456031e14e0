"""Tests of ``search.console``."""
