"""Dialects of the runtimes, one file each."""
