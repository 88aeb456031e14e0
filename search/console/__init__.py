"""What a person sees while a search runs: messages, progress, tables; signals and secrets."""
