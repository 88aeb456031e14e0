"""Numbers as people read them: units, digits, directions."""

from __future__ import annotations

import pytest

from bitfront.core import Limit, LimitCheck, MetricInfo, formatting, top1
from bitfront.core.builtin_metrics import METRICS

PSNR = MetricInfo(name="mine:psnr", unit="dB")


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.1, "3.10"), (0.4142, "0.414"), (123.4, "123"), (0.0, "0.000"), (1.5e-7, "1.50e−07"), (-0.5, "−0.500")],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    """Numbers are rounded to three digits and carry a real minus sign."""
    assert formatting.number(value) == text


def test_units_follow_the_size_of_the_number() -> None:
    """Bytes, kB, MB are decimal; a missing value is a dash."""
    assert formatting.size(999) == "999 B"
    assert formatting.size(62_300) == "62.3 kB"
    assert formatting.size(1_250_000) == "1.25 MB"
    assert formatting.latency(0.0312) == "0.0312 ms"
    assert formatting.ratio(0.414) == "0.41 ×"
    assert formatting.ratio(0.0414) == "0.041 ×"
    for written in (
        formatting.size(None),
        formatting.latency(None),
        formatting.ratio(None),
        formatting.metric_value(None, top1),
    ):
        assert written == formatting.MISSING


def test_top1_is_percent_and_other_metrics_are_not() -> None:
    """Only metrics known to be fractions are written in percent and points."""
    assert formatting.metric_value(0.972, top1) == "97.20 %"
    assert formatting.metric_value(-31.25, PSNR) == "−31.25 dB"
    assert formatting.metric_change(-0.001, top1) == "−0.10 points"
    assert formatting.metric_change(0.0, top1) == "±0.00 points"
    assert formatting.metric_change(-1e-9, top1) == "±0.00 points"
    assert formatting.metric_change(0.25, PSNR) == "+0.25 dB"


@pytest.mark.parametrize(
    ("limit", "value", "bound", "metric", "text"),
    [
        (Limit.LATENCY, 8.8079, 5.0, top1, "latency 8.808 ms > 5 ms"),
        (Limit.SIZE, 229_400, 200_000, top1, "size 229 kB > 200 kB"),
        (Limit.SIZE, 200_001, 200_000, top1, "size 200,001 > 200,000 bytes"),
        (Limit.ACCURACY, 0.7, 0.75, top1, "accuracy 70.00 % < 75.00 %"),
        (Limit.ACCURACY, 31.0, 32.5, PSNR, "accuracy 31 dB < 32.5 dB"),
        (Limit.ACCURACY, -0.5, -0.25, METRICS["mae"], "error 0.5 > 0.25"),
    ],
)
def test_a_missed_limit_is_written_as_the_metric_is(
    limit: Limit, value: float, bound: float, metric: MetricInfo, text: str
) -> None:
    """Value and bound, in the direction of the limit; sizes that would read alike in bytes."""
    assert formatting.limit_missed(LimitCheck(limit=limit, value=value, best=value, bound=bound), metric) == text


def test_durations_read_naturally() -> None:
    """Short ones in seconds, long ones in minutes and seconds."""
    assert [formatting.duration(s) for s in (1.24, 74.2, 125.0)] == ["1.2 s", "74 s", "2 min 5 s"]
