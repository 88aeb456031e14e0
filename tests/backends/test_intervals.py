"""Ends of intervals stand on their own sides, and rounds are ordered so that drift within them cancels."""

from __future__ import annotations

import numpy as np
import pytest

from bitfront.backends.estimates import Slots, round_order, summarise


def test_intervals_enclose_what_they_are_of() -> None:
    """The lower end below, the upper end above, of the latency and of the ratio, in the units of each."""
    rng = np.random.default_rng(3)
    reference = rng.normal(8e6, 1e5, (40, 5)).astype(np.int64)
    model = rng.normal(2e6, 2.5e4, (40, 5)).astype(np.int64)
    slots = {"fp32": Slots(times=reference), "int8": Slots(times=model)}
    stats = summarise(slots, "fp32", threads=1, batch_size=1)
    for found, level in ((stats["fp32"], 8.0), (stats["int8"], 2.0)):
        assert 0.9 * level < found.ci_low_ms < found.median_ms < found.ci_high_ms < found.p90_ms < 1.1 * level
    found = stats["int8"]
    assert found.ratio_low < found.ratio < found.ratio_high
    assert found.ratio_low < 0.25 < found.ratio_high
    assert (stats["fp32"].ratio_low, stats["fp32"].ratio_high) == (1.0, 1.0)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_rounds_run_both_ways_and_start_everywhere(count: int) -> None:
    """Every second round is the one before it backwards; over all of them each model stands in each place as often."""
    places = np.zeros((count, count), int)
    for number in range(0, 2 * count, 2):
        there, back = round_order(count, number), round_order(count, number + 1)
        assert sorted(there) == list(range(count))
        assert back == there[::-1]
        for order in (there, back):
            for place, model in enumerate(order):
                places[place, model] += 1
    assert (places == 2).all()
    assert len({round_order(count, number) for number in range(0, 2 * count, 2)}) == count
