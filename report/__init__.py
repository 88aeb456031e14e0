"""The Pareto front, tables, plots and the HTML page, from a run's saved results alone; nothing is ever run here."""
