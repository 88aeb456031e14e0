"""Tests of ``search.inputs``."""
