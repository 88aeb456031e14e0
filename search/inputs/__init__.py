"""Inputs of a run that a person brings: read, checked and put together."""
