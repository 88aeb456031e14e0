"""A candidate built, timed and scored on the runtime, and what is remembered of it."""
