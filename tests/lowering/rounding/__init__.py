"""Tests of weight rounding."""
