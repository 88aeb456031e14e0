"""Networks of many kinds, from published packages and made in code, that a search is run on one after the other."""
