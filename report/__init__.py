"""From saved results alone: Pareto front, tables, plots, the HTML page."""
