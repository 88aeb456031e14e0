"""Measurements keep every number under its own name, written and read back."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from bitfront.core import AccuracyStats, LatencyStats, MemoryUsage

# Every number differs from every other, so that none can stand for another unseen.
LATENCY = {
    "median_ms": 2.5, "p90_ms": 3.75, "ci_low_ms": 2.25, "ci_high_ms": 2.875, "ratio": 0.5, "ratio_low": 0.4375,
    "ratio_high": 0.625, "rounds": 24, "threads": 3, "batch_size": 7, "rounds_left_out": 5, "timings": 2,
}  # fmt: skip
ACCURACY = {"value": 0.75, "ci_low": 0.625, "ci_high": 0.8125, "samples": 480}
FOOTPRINT = {"engine_bytes": 900, "weight_bytes": 700, "activation_bytes": 300}


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [(LatencyStats, LATENCY), (AccuracyStats, ACCURACY), (MemoryUsage, FOOTPRINT)],
    ids=["latency", "accuracy", "footprint"],
)
def test_every_field_is_written_and_read_under_its_name(kind: Any, numbers: dict[str, float]) -> None:
    """``to_json`` is exactly the fields, and ``from_json`` gives the same value back."""
    value = kind(**numbers)
    assert {field.name for field in fields(kind)} == set(numbers)
    written = json.loads(json.dumps(value.to_json()))
    assert written == numbers
    read = kind.from_json(written)
    assert read == value
    assert {name: getattr(read, name) for name in numbers} == numbers


def test_a_footprint_is_known_where_anything_is() -> None:
    """One number is enough."""
    assert not MemoryUsage().known
    for name, size in FOOTPRINT.items():
        assert MemoryUsage(**{name: size}).known
