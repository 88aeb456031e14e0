"""Layouts of samples in what a person brings: one in each file, or a sequence in each sample."""
