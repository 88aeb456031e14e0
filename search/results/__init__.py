"""What a search comes to: finalists, recommendation, tables, files."""
