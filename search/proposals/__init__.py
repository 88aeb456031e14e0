"""Proposals: what is worth trying next."""
