"""The search space: schemes of a network's groups, and sparsities of its prune groups."""
