"""Names from outside are shown as what they are: nothing in them steers a terminal or hides from a reader."""

from __future__ import annotations

import unicodedata

import pytest

from bitfront.core.display import visible, visible_lines

SHOWN = {
    "plain": ("conv1/weight × ★ é 日本", "conv1/weight × ★ é 日本"),
    "no-break space": ("a\u00a0b", "a\u00a0b"),
    "colour": ("\x1b[31mred", "\\x1b[31mred"),
    "title and bell": ("\x1b]0;t\x07", "\\x1b]0;t\\x07"),
    "newline": ("a\nb", "a\\nb"),
    "carriage return and tab": ("a\r\tb", "a\\r\\tb"),
    "backspace and delete": ("a\x08\x7f", "a\\x08\\x7f"),
    "C1 control": ("\x9b31m", "\\x9b31m"),
    "bidirectional override": ("abc\u202etxt", "abc\\u202etxt"),
    "bidirectional isolate": ("\u2066x\u2069", "\\u2066x\\u2069"),
    "zero width": ("co\u200bnv\ufeff", "co\\u200bnv\\ufeff"),
    "line separator": ("a\u2028b", "a\\u2028b"),
    "tag character": ("a\U000e0041", "a\\U000e0041"),
    "bytes that are no UTF-8": ("a\udcffb", "a\\xffb"),
    "lone surrogate": ("a\ud800b", "a\\ud800b"),
    "NUL": ("a\0b", "a\\x00b"),
}


@pytest.mark.parametrize("case", SHOWN)
def test_what_cannot_be_seen_is_escaped(case: str) -> None:
    """Printable text stays; every control, format and undecodable character is its escape."""
    text, expected = SHOWN[case]
    assert visible(text) == expected
    visible(text).encode()  # whatever came, it can be written


def test_every_control_and_format_character_is_escaped() -> None:
    """None of Unicode's control, format, surrogate and separator characters is shown as it is."""
    unseen = ("Cc", "Cf", "Cs", "Zl", "Zp")
    kept = [
        char for char in map(chr, range(0x110000)) if unicodedata.category(char) in unseen and visible(char) == char
    ]
    assert kept == []


def test_lines_end_at_line_feeds_alone() -> None:
    """A text of several lines keeps them, whatever its line ends; other separators are shown."""
    assert visible_lines("a\r\nb\x1bc\u2028d\n") == ["a", "b\\x1bc\\u2028d", ""]
