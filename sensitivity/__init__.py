"""How much each choice for each group hurts the output: scores, ranks, a table."""
