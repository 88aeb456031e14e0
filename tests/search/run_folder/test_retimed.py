"""Latencies that were timed again in the course of a later trial survive a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.samplers import RandomSampler

from bitfront.core import LatencyStats
from bitfront.search.run_folder.study import Study
from bitfront.search.trial import Candidate, Origin, Trial, TrialStatus
from tests.search.measuring.test_evaluate import latency
from tests.search.proposals.spaces import chain


def _trial(number: int, candidate: Candidate, timed: LatencyStats, retimed: dict[int, LatencyStats]) -> Trial:
    return Trial(
        number=number, candidate=candidate, status=TrialStatus.STOPPED, artifact="a" * 8, size_bytes=9, latency=timed,
        latency_ms=10 * timed.ratio, misses={"latency": 10 * timed.ratio / 5 - 1}, seconds=0.1, retimed=retimed,
    )  # fmt: skip


def test_a_later_timing_is_read_back(tmp_path: Path) -> None:
    """The first of two trials has the latency that the second found, with its miss of the limit, when read back."""
    space, url = chain(3), f"sqlite:///{tmp_path / 'study.db'}"
    renewed = latency(0.6, 0.59, 0.61)
    study = Study(url, "s", space, RandomSampler(seed=0))
    for retimed in ({}, {0: renewed}):
        candidate = Candidate(origin=Origin.GREEDY, schemes=space.baselines()[len(study.trials())][1])
        number, asked = study.ask(candidate)
        study.tell(_trial(number, asked, latency(0.4, 0.39, 0.41), retimed))
    study.close()
    first, second = Study(url, "s", space, RandomSampler(seed=0)).trials()
    assert first.latency == renewed
    assert first.latency_ms == pytest.approx(6.0)
    assert first.misses["latency"] == pytest.approx(0.2)
    assert second.retimed == {0: renewed}
    assert second.latency == latency(0.4, 0.39, 0.41)
