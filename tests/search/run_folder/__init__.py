"""Tests of ``search.run_folder``."""
