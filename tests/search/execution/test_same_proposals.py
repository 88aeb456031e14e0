"""Equal seeds give equal proposals, as a golden file keeps them.

Where proposals are meant to change, it is written anew with ``UPDATE_GOLDEN=1`` in the environment.
"""

from __future__ import annotations

import json
import os
from typing import Any, cast

import pytest
from optuna.storages import InMemoryStorage

from bitfront.core import Constraints, top1
from bitfront.lowering.compute_type import ComputeType
from bitfront.search.execution import proposed_variants
from bitfront.search.execution.explorer import TrialContext
from bitfront.search.execution.joint import JointSearch
from bitfront.search.execution.variants import VariantContext
from bitfront.search.policy.allocation import RunLimits
from bitfront.search.policy.config import DEFAULTS
from bitfront.search.run_folder import study as study_module
from bitfront.search.run_folder.study import Study
from tests.search.execution.golden_searches import (
    GOLDEN,
    dumped,
    joint_parts,
    joint_seeded,
    sampled,
    sampled_jointly,
    seeded,
    told,
)
from tests.search.proposals.spaces import chain, prunable_chain


def searched_jointly(monkeypatch: pytest.MonkeyPatch, **asked: Any) -> dict[str, list[str]]:
    """Trials and promotions of a whole joint search."""
    parts = joint_parts(**asked)
    monkeypatch.setattr(study_module, "open_storage", lambda _: InMemoryStorage())
    monkeypatch.setattr(proposed_variants, "own_space", lambda *_: parts.student)
    trials = TrialContext(
        evaluator=parts.tried,
        watch=parts.watch,
        listener=parts.listener,
        metric=top1,
        checkpoint=lambda: None,
        checkpoint_due=lambda: False,
        limits=RunLimits(trials=parts.options.trials, time_limit_s=parts.options.time_limit_s),
        constraints=parts.options.budget,
        seed=parts.options.seed,
        policy=DEFAULTS,
    )
    context = VariantContext(
        builder=parts.builder,
        open_study=lambda space, sampler, name: Study("memory", f"golden-{name}", space, sampler, name),
        layers=parts.layers,
        unseen=parts.unseen,
        divergence_samples=8,
        measure="kl",
        sensitivities=cast(Any, None),
    )
    search = JointSearch(trials, context, parts.space)
    search.executor.unit = 40
    search.run([])
    race = [f"{j.label} {j.rung} {j.steps} {j.value:.6f} {j.promoted}" for j in parts.builder.history]
    spaces = {name: one.space for name, one in search.executor.explorers.items()}
    return {"trials": told(parts.tried.trials, spaces, parts.networks), "race": race}


SEARCHES: dict[str, Any] = {
    "sampler": lambda _: sampled(8, 0, Constraints(), ComputeType.FP32),
    "sampler, half": lambda _: sampled(8, 1, Constraints(), ComputeType.FP16),
    "sampler, limits": lambda _: sampled(
        10, 2, Constraints(latency_ms=1.1, size_bytes=60_000.0, min_accuracy=0.88), ComputeType.FP32
    ),
    "sampler, prunings": lambda _: sampled_jointly(4),
    "seeds": lambda _: seeded(chain(9, 5)),
    "seeds, half": lambda _: seeded(chain(7, 6, ComputeType.FP16)),
    "joint seeds": lambda _: joint_seeded(prunable_chain(6, 7)),
    "joint search": lambda patch: searched_jointly(
        patch, seed=1, budget=Constraints(max_drop=0.02), train_s=100.0, trials=60, time_limit_s=None
    ),
    "joint search, limits": lambda patch: searched_jointly(
        patch, seed=2, budget=Constraints(latency_ms=0.6, size_bytes=30_000.0, max_drop=0.03), train_s=200.0,
        trials=50, time_limit_s=400.0,
    ),
    "joint search, no floor": lambda patch: searched_jointly(
        patch, seed=3, budget=Constraints(size_bytes=40_000.0), train_s=None, trials=40, time_limit_s=120.0
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEARCHES)
def test_equal_seeds_give_equal_proposals(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SEARCHES[name](monkeypatch)
    if os.environ.get("UPDATE_GOLDEN"):
        kept = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(dumped({**kept, name: found}))
    assert found == json.loads(GOLDEN.read_text())[name]
