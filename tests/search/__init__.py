"""Tests of the search and its command line."""
