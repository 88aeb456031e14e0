"""A run's folder: what it belongs to, who works in it, and the study it keeps."""
