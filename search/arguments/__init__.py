"""The options of the command line: how they are declared, read and checked."""
