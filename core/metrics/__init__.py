"""The built-in metrics' functions, a task a module; ``core.builtin_metrics`` registers them by name.

Those that get the samples first go through them one by one, so that samples of different shapes are scored alike.
"""
