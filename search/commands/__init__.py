"""The commands, a module each: its parser and its ``run``. Nothing heavy is imported before a command runs."""
