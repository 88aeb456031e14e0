"""One search on several backends."""
