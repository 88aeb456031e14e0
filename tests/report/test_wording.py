from __future__ import annotations

import pytest

from bitfront.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.1, "3.10"), (0.4142, "0.414"), (123.4, "123"), (0.0, "0.000"), (1.5e-7, "1.50e−07"), (-0.5, "−0.500")],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    """Numbers are rounded to three digits and carry a real minus sign."""
    assert wording.number(value) == text


def test_units_follow_the_size_of_the_number() -> None:
    """Bytes, kB, MB are decimal; a missing value is a dash."""
    assert wording.size(999) == "999 B"
    assert wording.size(62_300) == "62.3 kB"
    assert wording.size(1_250_000) == "1.25 MB"
    assert wording.latency(0.0312) == "0.0312 ms"
    assert wording.ratio(0.414) == "0.41 ×"
    assert wording.ratio(0.0414) == "0.041 ×"
    for written in (wording.size(None), wording.latency(None), wording.ratio(None), wording.accuracy(None, "top1")):
        assert written == wording.MISSING


def test_top1_is_percent_and_other_metrics_are_not() -> None:
    """Only metrics known to be fractions are written in percent and points."""
    assert wording.accuracy(0.972, "top1") == "97.20 %"
    assert wording.accuracy(-31.25, "mine:psnr") == "−31.25"
    assert wording.accuracy_change(-0.001, "top1") == "−0.10 points"
    assert wording.accuracy_change(0.0, "top1") == "±0.00 points"
    assert wording.accuracy_change(-1e-9, "top1") == "±0.00 points"
    assert wording.accuracy_change(0.25, "mine:psnr") == "+0.25"


def test_durations_read_naturally() -> None:
    """Short ones in seconds, long ones in minutes and seconds."""
    assert [wording.duration(s) for s in (1.24, 74.2, 125.0)] == ["1.2 s", "74 s", "2 min 5 s"]
