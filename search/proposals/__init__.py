"""What may be decided, and what is worth trying next."""
