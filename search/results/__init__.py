"""Results of a search: finalists, recommendation, tables, files."""
