"""Output at a terminal while a search runs: messages, progress, tables; signals and secrets."""
