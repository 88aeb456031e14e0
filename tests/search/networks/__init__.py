"""Tests of ``search.networks``."""
