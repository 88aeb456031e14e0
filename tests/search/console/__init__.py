"""Tests of ``search.proposals``."""
