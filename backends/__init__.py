"""Runtimes behind one seam: compile, run and time an artifact; one timing protocol for all."""
