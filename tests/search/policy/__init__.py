"""Tests of ``search.policy``."""
