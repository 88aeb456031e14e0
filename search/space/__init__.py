"""What may be decided about a network: schemes of its groups, and what of it is pruned."""
