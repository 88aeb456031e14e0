"""What a search does: tries candidates, makes and trains variants, and tells the study; ``policy`` says which."""
