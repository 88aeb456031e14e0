"""Policy of a search, its next steps as functions of history, constraints and clock; nothing here tries or trains."""
