"""Numbers as they are written for people: units, three significant digits, a real minus sign.

Sizes are decimal (1 kB is 1,000 bytes), as limits are. A metric is written as it says (``MetricInfo.unit``): fractions
in percent and their changes in points, anything else as the number it is.
"""

from __future__ import annotations

import math

from bitfront.core.constraints import ACCURACY_TOLERANCE, BYTES_PER_MB, Limit, LimitCheck
from bitfront.core.measurement import PairedDifference
from bitfront.core.metric import MetricInfo

BYTES_PER_KB = 1_000
MISSING = "–"


def number(value: float) -> str:
    """Three significant digits, never in exponent form above 1e-4."""
    if not math.isfinite(value):
        return MISSING
    if value and abs(value) < 1e-4:
        return f"{value:.2e}".replace("-", "−")
    decimals = 3 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 6)}f}".replace("-", "−")


def latency(value_ms: float | None) -> str:
    """Text of a latency in milliseconds."""
    return MISSING if value_ms is None else f"{number(value_ms)} ms"


def size(value_bytes: float | None) -> str:
    """Bytes, kB or MB, whichever gives a readable number."""
    if value_bytes is None:
        return MISSING
    if value_bytes < BYTES_PER_KB:
        return f"{value_bytes:.0f} B"
    if value_bytes < BYTES_PER_MB:
        return f"{number(value_bytes / BYTES_PER_KB)} kB"
    return f"{number(value_bytes / BYTES_PER_MB)} MB"


def ratio(value: float | None) -> str:
    """A ratio with two decimals, three below 0.1."""
    if value is None:
        return MISSING
    return f"{value:.3f} ×" if value < 0.1 else f"{value:.2f} ×"


def metric_value(value: float | None, metric: MetricInfo) -> str:
    """The metric's value: percent of a fraction, else four significant digits and the unit."""
    if value is None:
        return MISSING
    text = f"{100 * value:.2f}" if metric.in_percent else f"{value:.4g}"
    return _with_unit(text.replace("-", "−"), metric.unit)


def metric_change(value: float | None, metric: MetricInfo) -> str:
    """A difference of two values of the metric, signed: in points of a fraction, else in the metric's unit."""
    if value is None:
        return MISSING
    return _with_unit(_signed(value, metric), "points" if metric.in_percent else metric.unit)


def _signed(value: float, metric: MetricInfo) -> str:
    text = f"{100 * value:+.2f}" if metric.in_percent else f"{value:+.3g}"
    if not any(digit in text for digit in "123456789"):
        text = text.replace("+", "±").replace("-", "±")
    return text.replace("-", "−")


def paired_change(change: PairedDifference, metric: MetricInfo) -> str:
    """A difference with its interval: ``−1.20 points [−2.10, −0.40]``."""
    low, high = (_signed(value, metric) for value in (change.ci_low, change.ci_high))
    return f"{metric_change(change.value, metric)} [{low}, {high}]"


def counted(change: PairedDifference) -> str:
    """Number of samples a difference of hits comes to: ``2 of 450 samples``."""
    return f"{abs(change.better - change.worse)} of {change.samples:,} samples"


def verdict(change: PairedDifference, metric: MetricInfo) -> str:
    """Words for a difference that cannot be told from none, with the number of samples; empty where it can."""
    if change.measurable:
        return ""
    if change.better + change.worse == 0:
        return f"the same {metric.quantity} on each of {change.samples:,} samples"
    if not change.hits:
        return f"no measurable difference ({change.samples:,} samples)"
    if change.better == change.worse:
        return f"no measurable difference ({change.better} better, {change.worse} worse of {change.samples:,} samples)"
    return f"no measurable difference ({counted(change)})"


def limit_missed(check: LimitCheck, metric: MetricInfo, samples: int | None = None) -> str:
    """A missed limit, its value and its bound: ``latency 8.808 ms > 5 ms``, ``accuracy 70.00 % < 75.00 %``.

    Args:
        check: What is missed.
        metric: How its values are written.
        samples: How many samples a metric was held against its limit on, where that is to be told.
    """
    if check.limit is Limit.LATENCY:
        return f"latency {check.value:.4g} ms > {check.bound:g} ms"
    if check.limit is Limit.SIZE:
        value, bound = size(check.value), size(check.bound)
        return f"size {value} > {bound}" if value != bound else f"size {check.value:,.0f} > {check.bound:,.0f} bytes"
    value, bound = (metric_value(metric.oriented(found), metric) for found in (check.value, check.bound))
    sign, at = (">", "at most") if metric.lower_is_better else ("<", "at least")
    sure = ""
    if check.assured is not None and check.assured < check.value - ACCURACY_TOLERANCE:
        sure = f" ({at} {metric_value(metric.oriented(check.assured), metric)} as surely as asked)"
    return f"{metric.quantity} {value}{sure} {sign} {bound}" + (f" on all {samples:,} samples" if samples else "")


def first_line(error: BaseException) -> str:
    """The first line of an error's text; the name of its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def duration(seconds: float) -> str:
    """Seconds, or minutes and seconds from two minutes on."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _with_unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if unit else text
