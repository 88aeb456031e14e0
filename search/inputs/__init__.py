"""What a person brings: read, checked, put together."""
