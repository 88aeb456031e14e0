"""Tests of ``search.execution``."""
