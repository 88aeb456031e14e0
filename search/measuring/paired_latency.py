"""Latencies of artifacts beside the given network: timed once, kept, and timed again before they decide.

A second timing is of another moment and another compilation. Where the intervals of both overlap, the ratios are
averaged by their precision and the narrower interval stays: both were timed beside one compilation of the given
network, so they are not independent. Where they do not overlap, one of them met something that its own rounds did not
show, and the interval holds both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from bitfront.backends.base import CompiledModel
from bitfront.core import LatencyStats
from bitfront.core.given_network import GIVEN_ID
from bitfront.search.measuring.given import Given
from bitfront.search.measuring.runner import QUICK, ModelRunner

_LEAST_WIDTH = 1e-6  # of a logarithm: a simulated clock knows ratios exactly


class PairedLatencies:
    """Latencies by artifact.

    Args:
        runner: Times and remembers.
        given: The network that all are timed beside.
    """

    def __init__(self, runner: ModelRunner, given: Given) -> None:
        self._runner = runner
        self._given = given

    def of(self, artifact: str, compiled: Callable[[], CompiledModel]) -> LatencyStats:
        """The artifact's latency, timed now where it never was."""
        latency = self._runner.measurements.latency(artifact)
        if latency is None:
            latency = self._timed({artifact: compiled})[artifact]
            self._runner.measurements.put_latency(artifact, latency)
        return latency

    def again(self, artifacts: Mapping[str, Callable[[], CompiledModel]]) -> dict[str, LatencyStats]:
        """Time artifacts together once more; each latency is pooled with what was known of it, and kept."""
        pooled_latencies = {}
        for artifact, later in self._timed(artifacts).items():
            earlier = self._runner.measurements.latency(artifact)
            pooled_latencies[artifact] = pooled(earlier, later) if earlier else later
            self._runner.measurements.put_latency(artifact, pooled_latencies[artifact])
        return pooled_latencies

    def _timed(self, artifacts: Mapping[str, Callable[[], CompiledModel]]) -> dict[str, LatencyStats]:
        models = {GIVEN_ID: self._given.compiled}
        models |= {artifact: made() for artifact, made in artifacts.items() if artifact != self._given.artifact}
        found = self._runner.time(models, QUICK)
        return {artifact: found.get(artifact, found[GIVEN_ID]) for artifact in artifacts}


def pooled(earlier: LatencyStats, later: LatencyStats) -> LatencyStats:
    """Pool two timings of an artifact into one latency, by the module's first lines."""
    narrower = min(earlier, later, key=_width)
    low, high, ratio = narrower.ratio_low, narrower.ratio_high, narrower.ratio
    if max(earlier.ratio_low, later.ratio_low) > min(earlier.ratio_high, later.ratio_high):
        low, high = min(earlier.ratio_low, later.ratio_low), max(earlier.ratio_high, later.ratio_high)
    else:
        weights = [_width(timing) ** -2 for timing in (earlier, later)]
        logarithm = sum(w * math.log(t.ratio) for w, t in zip(weights, (earlier, later), strict=True)) / sum(weights)
        moved = math.exp(logarithm) / ratio
        low, high, ratio = low * moved, high * moved, ratio * moved
    beside_ms = min(timing.median_ms / timing.ratio for timing in (earlier, later))
    scale = beside_ms * ratio / narrower.median_ms
    return replace(
        narrower,
        median_ms=beside_ms * ratio,
        p90_ms=max(earlier.p90_ms, later.p90_ms),
        ci_low_ms=narrower.ci_low_ms * scale,
        ci_high_ms=narrower.ci_high_ms * scale,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        rounds=earlier.rounds + later.rounds,
        rounds_left_out=earlier.rounds_left_out + later.rounds_left_out,
        timings=earlier.timings + later.timings,
    )


def _width(latency: LatencyStats) -> float:
    return max(math.log(latency.ratio_high / latency.ratio_low), _LEAST_WIDTH)
