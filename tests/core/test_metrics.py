"""Metrics as values: built-in ones by hand-computed numbers, what a function declares, what is refused."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest

from bitfront.core import (
    METRICS,
    AccuracyStats,
    Array,
    DataError,
    Direction,
    Metric,
    MetricInfo,
    WorkloadError,
    as_metric,
    top1,
)
from bitfront.core.builtin_metrics import info_from_settings

CLASSES = np.array([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 0.5, 0.4, 0.3, 0.2, 0.1]])
VALUES = np.array([[1.0, 2.0], [0.0, -4.0]])


def scores(name: str, output: Array, labels: Array) -> list[float]:
    """What a built-in metric gives, as a list."""
    found: list[float] = np.asarray(METRICS[name]((output,), labels)).tolist()
    return found


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("top1", [0, 0, 1], [1.0, 1.0, 1.0]),
        ("top1", [1, 5, 0], [0.0, 0.0, 0.0]),
        ("top5", [4, 4, 5], [1.0, 1.0, 1.0]),
        ("top5", [5, 5, 0], [0.0, 0.0, 0.0]),
    ],
)
def test_hits_by_hand(name: str, labels: list[int], expected: list[float]) -> None:
    """Of equal entries the first are larger; trailing axes of one count as classes, further outputs do not count."""
    assert scores(name, CLASSES, np.array(labels)) == expected
    assert scores(name, CLASSES[:, :, None, None], np.array(labels)) == expected
    assert np.asarray(METRICS[name]((CLASSES, -CLASSES), np.array(labels))).tolist() == expected


def test_top5_of_five_classes_tells_nothing() -> None:
    """Every label is among five of five."""
    with pytest.raises(DataError, match="top5 of 5 classes counts every sample as a hit"):
        METRICS["top5"]((CLASSES[:, :5],), np.array([0, 1, 2]))


@pytest.mark.parametrize(("name", "expected"), [("mae", [0.5, 3.0]), ("mse", [0.5, 10.0])])
def test_errors_by_hand(name: str, expected: list[float]) -> None:
    """|1 − 1|, |2 − 1| and |0 − 2|, |−4 − 0|: means over a sample's values, whatever their shape and type."""
    labels = np.array([[1, 1], [2, 0]])
    assert scores(name, VALUES, labels) == expected
    assert scores(name, VALUES.reshape(2, 1, 2).astype(np.float32), labels[:, :, None]) == expected
    with pytest.raises(DataError, match=r"output of shape \(2, 2\) and labels of shape \(2,\) hold different numbers"):
        METRICS[name]((VALUES,), np.array([1, 2]))


def test_every_built_in_metric_is_declared() -> None:
    """By its own name, with bounds and the kind of scores; a registry entry is all there is."""
    assert top1 is METRICS["top1"]
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.per_sample is not None
        assert metric.bounds[0] in (0.0, -1.0)
        assert as_metric(metric) is metric
        assert info_from_settings(metric.settings()).settings() == metric.settings()


def test_a_function_declares_by_attributes() -> None:
    """Without any it is better when higher; through partial they are the function's."""

    def score(outputs: tuple[Array, ...], labels: Array) -> float:
        return float(len(outputs) + len(labels))

    plain = as_metric(score)
    assert (plain.direction, plain.unit, plain.per_sample) == (Direction.HIGHER, "", None)
    assert plain.name == f"{__name__}:{score.__qualname__}"
    score.direction, score.unit, score.bounds = "lower", "dB", (0, 9)  # type: ignore[attr-defined]
    for found in (as_metric(score), as_metric(partial(score))):
        assert (found.direction, found.unit, found.bounds) == (Direction.LOWER, "dB", (0.0, 9.0))
        assert found.name == plain.name
        assert found((VALUES,), np.zeros(2)) == 3.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"direction": "down"}, "direction is 'down', expected 'higher' or 'lower'"),
        ({"bounds": (1, 0)}, r"bounds are \(1, 0\), expected the lowest and the highest value"),
        ({"bounds": 3}, "bounds are 3"),
        ({"unit": 7}, "unit is 7, expected text"),
        ({"compute": None}, "compute is None, expected a function"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], message: str) -> None:
    """The message names the metric and the field."""
    with pytest.raises(WorkloadError, match=f"metric 'mine': {message}"):
        Metric(**{"name": "mine", "compute": len, **wrong})


def test_orientation_turns_back() -> None:
    """Greater is better inside the search; values and intervals come out as they went in."""
    error, stats = METRICS["mae"], AccuracyStats(value=0.5, ci_low=0.25, ci_high=1.0, samples=9)
    assert error.oriented(0.5) == -0.5
    assert error.oriented_stats(stats) == AccuracyStats(value=-0.5, ci_low=-1.0, ci_high=-0.25, samples=9)
    assert error.oriented_stats(error.oriented_stats(stats)) == stats
    assert (top1.oriented(0.5), top1.oriented_stats(stats)) == (0.5, stats)


def test_settings_of_before_are_better_when_higher() -> None:
    """Runs that named the metric alone; ``top1`` was in percent then, too."""
    assert info_from_settings({"metric": "top1"}) == MetricInfo(name="top1", unit="%")
    assert info_from_settings({"metric": "mine:psnr"}) == MetricInfo(name="mine:psnr")
    assert info_from_settings({"metric": "m", "metric_direction": "lower", "metric_unit": "dB"}).lower_is_better
    assert METRICS["mse"].bounds == (0.0, math.inf)
