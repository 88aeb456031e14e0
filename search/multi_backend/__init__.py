"""A run on several backends: a search on each, and every finalist measured on all of them."""
