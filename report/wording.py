"""How numbers are written for people: units, three significant digits, a real minus sign.

Sizes are decimal (1 kB is 1,000 bytes), as budgets are. ``top1`` is written in percent and its changes in points;
any other metric is written as the number it is, since its range is not known.
"""

from __future__ import annotations

import math

from bitfront.core import BYTES_PER_MB

BYTES_PER_KB = 1_000
MISSING = "–"
PERCENT_METRICS = ("top1",)


def number(value: float) -> str:
    """Three significant digits, never in exponent form above 1e-4."""
    if not math.isfinite(value):
        return MISSING
    if value and abs(value) < 1e-4:
        return f"{value:.2e}".replace("-", "−")
    decimals = 3 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 6)}f}".replace("-", "−")


def latency(value_ms: float | None) -> str:
    """Milliseconds."""
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


def accuracy(value: float | None, metric: str) -> str:
    """The metric's value: percent for ``top1``, else four significant digits."""
    if value is None:
        return MISSING
    text = f"{100 * value:.2f} %" if metric in PERCENT_METRICS else f"{value:.4g}"
    return text.replace("-", "−")


def accuracy_change(value: float | None, metric: str) -> str:
    """A difference of two values of the metric, signed: points for ``top1``."""
    if value is None:
        return MISSING
    text = f"{100 * value:+.2f}" if metric in PERCENT_METRICS else f"{value:+.3g}"
    if not any(digit in text for digit in "123456789"):
        text = text.replace("+", "±").replace("-", "±")
    unit = " points" if metric in PERCENT_METRICS else ""
    return text.replace("-", "−") + unit


def duration(seconds: float) -> str:
    """Seconds, or minutes and seconds from two minutes on."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
