"""Sensitivity of the output to each scheme of each group and to each sparsity: scores, losses, tables."""
