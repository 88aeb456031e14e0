"""Finished work is found again only where everything it depends on is the same: one part changed at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitfront.core import Constraints, ContentStore, MemoryUsage, top1
from bitfront.search.measuring.accuracy import Scored
from bitfront.search.measuring.measurement_cache import Lowered, MeasurementCache
from bitfront.search.options import RunOptions
from bitfront.search.prepare import GIVEN_FILE, _measurements
from bitfront.search.run_folder.identity import identify
from tests.search import toy
from tests.search.measuring.test_bookkeeping import latency

LAYERS = {"fc": toy.INT8}
IDENTITY = {
    **identify(toy.workload(), "f" * 8, {"device": "toy"}, RunOptions(budget=Constraints(), out=Path("run"))),
    "the backend's code": "a person's own",
    GIVEN_FILE: "e" * 8,
}
# Part of a run's identity → the kinds of finished work that depend on it.
EVERYTHING = {"lowered", "timed", "footprint", "together", "scored"}
TIMINGS = {"timed", "footprint", "together"}
DEPENDS = {
    "the network": {"lowered"},
    GIVEN_FILE: TIMINGS,
    "the calibration data": {"lowered"} | TIMINGS,
    "the calibration settings": {"lowered"},
    "the evaluation data": {"scored"},
    "the metric": {"scored"},
    "the device": EVERYTHING,
    "--backend": EVERYTHING,
    "the backend's code": EVERYTHING,
    "--threads": EVERYTHING,
    "--batch-size": TIMINGS,
    "--seed": {"scored"},
    "--holdout": {"scored"},
}


def fill(measurements: MeasurementCache) -> None:
    measurements.put_lowered(LAYERS, Lowered(artifact="a", size_bytes=9))
    measurements.put_latency("a", latency(0.5))
    measurements.put_memory_usage("a", MemoryUsage(engine_bytes=3))
    measurements.put_joint_latencies("here", {"a": latency(0.5)})
    measurements.put_scored("a", "search", Scored(np.ones(3), 3))


def known(measurements: MeasurementCache) -> set[str]:
    """Kinds of work that are found."""
    found = {
        "lowered": measurements.lowered(LAYERS),
        "timed": measurements.latency("a"),
        "footprint": measurements.memory_usage("a"),
        "together": measurements.joint_latencies("here", ["a"]),
        "scored": measurements.scored("a", "search"),
    }
    return {kind for kind, value in found.items() if value is not None}


@pytest.mark.parametrize("part", DEPENDS)
def test_a_change_hides_what_depends_on_it(part: str) -> None:
    """And what does not is still found: nothing is measured twice for nothing."""
    store = ContentStore(None)
    fill(_measurements(store, IDENTITY, top1))
    assert known(_measurements(store, IDENTITY, top1)) == EVERYTHING
    assert part in IDENTITY
    changed = _measurements(store, {**IDENTITY, part: "another"}, top1)
    assert EVERYTHING - known(changed) >= DEPENDS[part]


def test_networks_artifacts_and_kinds_are_kept_apart() -> None:
    """The same schemes on another network, other schemes, another artifact, another part of the data."""
    store = ContentStore(None)
    measurements = MeasurementCache(store, lowering="l", timing="t", scoring="s")
    fill(measurements)
    measurements.put_lowered(LAYERS, Lowered(artifact="p", size_bytes=5), "pruned")
    again = MeasurementCache(store, lowering="l", timing="t", scoring="s")
    assert again.lowered(LAYERS) == Lowered(artifact="a", size_bytes=9)
    assert again.lowered(LAYERS, "pruned") == Lowered(artifact="p", size_bytes=5)
    assert again.lowered(LAYERS, "another") is None
    assert again.lowered({"fc": toy.INT4}) is None
    assert again.lowered({"fc2": toy.INT8}) is None
    assert again.latency("p") is None
    assert again.memory_usage("p") is None
    assert again.joint_latencies("here", ["a", "p"]) is None
    assert again.joint_latencies("elsewhere", ["a"]) is None
    assert again.scored("p", "search") is None
    assert again.scored("a", "held back") is None
