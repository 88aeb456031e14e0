"""Text from outside made safe to show: names of layers, files and columns as they come from a network or a folder.

A name may hold characters that a terminal obeys (colours, the window's title, a cursor moved over earlier lines) or
that make a reader see another name (bidirectional overrides, zero-width characters). Each is written as its escape.
"""

from __future__ import annotations

import unicodedata

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNDECODED = range(0xDC80, 0xDD00)  # what Python makes of bytes that are no UTF-8 (PEP 383)


def visible(text: str) -> str:
    r"""``text`` in one line, with control and invisible characters as escapes: ``\x1b``, ``\u202e``, ``\n``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or _is_space(char) else _escape(char) for char in text)


def visible_lines(text: str) -> list[str]:
    """The lines of ``text``, each ``visible``; only a line feed ends a line."""
    return [visible(line.removesuffix("\r")) for line in text.split("\n")]


def _is_space(char: str) -> bool:
    return unicodedata.category(char) == "Zs"


def _escape(char: str) -> str:
    code = ord(char)
    if code in _UNDECODED:
        return f"\\x{code - 0xDC00:02x}"
    return _SHORT.get(char) or char.encode("unicode_escape").decode("ascii")
