"""The study of regret: draws as a run has them, rules that differ, and figures of the synthetic front."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bitfront.core import UsageError
from bitfront.experiments import regret_study
from bitfront.experiments.recorded_front import recorded, synthetic
from bitfront.experiments.regret_study import COLUMNS, Taken, draw, exact_maximum, main, one_standard_error, paired_test


def test_synthetic_front_trades_cost_for_accuracy() -> None:
    """FP32 is the slowest, largest and within chance the most accurate; what costs least loses most."""
    front = synthetic(0, candidates=30, samples=4000)
    assert front.ids[0] == "fp32"
    assert front.latency_ms.argmax() == front.size_bytes.argmax() == 0
    assert front.truth.max() - front.truth[0] < 0.005
    cost = front.latency_ms + front.size_bytes / front.size_bytes.max()
    assert np.corrcoef(cost, front.truth)[0, 1] > 0.5


def test_every_rule_keeps_latency_and_size_and_reports_a_difference() -> None:
    """On samples that differ from draw to draw; of ties the exact maximum is never the faster."""
    front, rng = synthetic(1, candidates=24, samples=3000), np.random.default_rng(1)
    slower = 0
    for _ in range(6):
        drawn = draw(front, 150, rng)
        assert len(drawn.points) <= 12
        assert {len(e.held_out.scores) for e in drawn.evidence.values() if e.held_out} == {150}
        found = [rule(drawn) for rule in (exact_maximum, one_standard_error, paired_test(0.16))]
        kept = [one for one in found if isinstance(one, Taken)]
        for one in kept:
            assert front.latency_ms[one.index] <= (drawn.budget.latency_ms or 0)
            assert front.size_bytes[one.index] <= (drawn.budget.size_bytes or 0)
            assert -1 <= one.reported <= 1
        if found[0] and found[1]:
            assert front.latency_ms[found[1].index] <= front.latency_ms[found[0].index]
            slower += front.latency_ms[found[1].index] < front.latency_ms[found[0].index]
    assert slower


def test_study_prints_a_row_a_rule(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And writes it; the rule that others are held against has no difference to itself."""
    monkeypatch.setattr(regret_study, "synthetic", lambda seed: synthetic(seed, candidates=14, samples=1500))
    assert main(["--budgets", "5", "--samples", "80", "--csv", str(tmp_path / "t.csv")]) == 0
    printed = capsys.readouterr().out
    assert "one standard error  +0.000 ± 0.000    1.000 ×" in printed
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        heading, *rows = csv.reader(file)
    assert tuple(heading) == COLUMNS
    assert [row[0] for row in rows] == list(regret_study.rules())


def test_run_without_its_workload_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--run: the workload"):
        recorded(tmp_path, None, None)
