"""Networks that passes make, and the search over them."""
