"""Execution of a search: tries candidates, makes and trains variants, tells the study; ``policy`` says which."""
