"""Passes, one module each: its options, its words on the command line and in reports, how it makes a model variant.

What a pass computes is torch and lies in the room ``passes/``; here is how it takes part in a search. ``registry``
lists them, ``base`` says what a pass has, ``docs/adding-a-pass.md`` has a whole example.
"""
