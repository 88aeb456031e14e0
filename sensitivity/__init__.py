"""How much each scheme for each group hurts the output: scores, ranks, a table."""
