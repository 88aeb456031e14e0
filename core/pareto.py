"""The Pareto front of measured points, and the volume it dominates.

Objectives are accuracy (higher is better), latency and size (lower is better). Point a dominates b when it is at
least as good in all three and better in one. Equal points do not dominate each other: all of them stay. Measured
values are compared exactly, without a tolerance: what counts as noise is the measurement's business, not the front's.

``hypervolume`` slices along the size axis and sums areas (the HSO idea of While, Hingston, Barone and Huband, "A
faster algorithm for calculating hypervolume", 2006, section III), O(n²) for n points on the front.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bitfront.core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """Accuracy, latency and size, by which points are compared.

    Attributes:
        accuracy: The metric, higher is better.
        latency_ms: Lower is better.
        size_bytes: Lower is better.

    Raises:
        DataError: If a value is NaN or infinite: no order is defined then.
    """

    accuracy: float
    latency_ms: float
    size_bytes: float

    def __post_init__(self) -> None:
        for name, value in (
            ("accuracy", self.accuracy),
            ("latency_ms", self.latency_ms),
            ("size_bytes", self.size_bytes),
        ):
            if not math.isfinite(value):
                raise DataError(
                    f"{name} of a point: expected a finite number, got {value}",
                    "leave points that could not be measured out; a metric that returns NaN cannot be searched on",
                )

    def dominates(self, other: Objectives) -> bool:
        """Whether this point is nowhere worse than ``other`` and better somewhere."""
        return (
            self.accuracy >= other.accuracy
            and self.latency_ms <= other.latency_ms
            and self.size_bytes <= other.size_bytes
            and self != other
        )


def pareto_front(points: Sequence[Objectives]) -> tuple[int, ...]:
    """Indices of the points that no other point dominates, in the order given; equal points all stay."""
    # Best first in lexicographic order: a point can only be dominated by one that comes before it, and then also by
    # one of those kept, since domination is transitive.
    order = sorted(range(len(points)), key=lambda i: (-points[i].accuracy, points[i].latency_ms, points[i].size_bytes))
    kept: list[int] = []
    for index in order:
        if not any(points[other].dominates(points[index]) for other in kept):
            kept.append(index)
    return tuple(sorted(kept))


def step_line(points: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The (cost, accuracy) pairs that no other pair dominates, by rising cost; of equal pairs one stays."""
    steps: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda pair: (pair[0], -pair[1])):
        if not steps or accuracy > steps[-1][1]:
            steps.append((cost, accuracy))
    return tuple(steps)


def hypervolume(points: Sequence[Objectives], reference: Objectives) -> float:
    """Volume of what ``points`` dominate and the reference point bounds; in accuracy × ms × bytes.

    Args:
        points: Any points; those that are not better than ``reference`` in all three objectives add nothing.
        reference: The worst corner: lowest accuracy, highest latency and size that still count.
    """
    inside = [
        point
        for point in points
        if point.accuracy > reference.accuracy
        and point.latency_ms < reference.latency_ms
        and point.size_bytes < reference.size_bytes
    ]
    inside.sort(key=lambda point: point.size_bytes)
    volume = 0.0
    for position, point in enumerate(inside):
        is_last = position + 1 == len(inside)
        depth = (reference.size_bytes if is_last else inside[position + 1].size_bytes) - point.size_bytes
        if depth > 0:
            volume += depth * _area(inside[: position + 1], reference)
    return volume


def _area(points: Sequence[Objectives], reference: Objectives) -> float:
    """Area that the points dominate in the plane of latency and accuracy."""
    steps = step_line((point.latency_ms, point.accuracy) for point in points)
    area = 0.0
    for position, (latency_ms, accuracy) in enumerate(steps):
        end_ms = steps[position + 1][0] if position + 1 < len(steps) else reference.latency_ms
        area += (end_ms - latency_ms) * (accuracy - reference.accuracy)
    return area
