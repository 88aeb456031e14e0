"""The search itself: space, solver, study, run, command line."""
