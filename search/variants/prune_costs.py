"""What pruning saves: a few random prunings of the given network, untrained, timed and never scored.

The latency model learns from them how each layer's cost falls with what stays of it. Residual branches are there, or
one random half of them is gone, or the other half: each is another architecture, and takes seconds to export.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bitfront.core import EngineError, Precision
from bitfront.search.proposals.prune_space import PruneSpace
from bitfront.search.trial import COST, Candidate

if TYPE_CHECKING:
    from bitfront.search.variants.joint import JointSearch

_MOST = 10


def learn_costs(joint: JointSearch) -> None:
    """Time them at INT8, and one, with every channel group at its highest sparsity, in FP32 too."""
    session, space, explorer = joint.session, joint.space, joint.explorer
    rng = np.random.default_rng([session.options.seed, len(space.prunes)])
    known = {trial.candidate.key for trial in explorer.trials if trial.candidate.origin == COST}
    low, high = space.uniform(Precision.INT8), space.uniform(Precision.FP32)
    first = rng.random(len(space.prunes)) < 0.5
    gone = (np.zeros_like(first), first, ~first)
    for number in range(min(2 + len(space.prunes) // 2, _MOST)):
        if explorer.late:
            return
        encoding = [
            _level(prune, bool(without), rng, highest=number == 0)
            for prune, without in zip(space.prunes, gone[number % len(gone)], strict=True)
        ]
        whole = space.canonical((*space.schemes(space.encode(low)), *encoding))
        pruning = space.pruning(whole)
        try:
            network = joint.builder.variants.add([joint.builder.prune_step(pruning)])
        except EngineError as error:
            session.listener.warn(f"pruning {shown(pruning)}: {error.message}")
            continue
        for schemes in (low, high)[: 2 if number == 0 and low != high else 1]:
            candidate = Candidate(origin=COST, schemes=schemes, pruning=pruning, network=network)
            if candidate.key not in known:
                known.add(candidate.key)
                explorer.attempt(candidate)


def _level(prune: PruneSpace, without: bool, rng: np.random.Generator, *, highest: bool) -> int:
    """Index of a sparsity: the whole gone where it may be and is to be, else a random or the highest part of it."""
    last = len(prune.sparsities) - 1
    if prune.sparsities[last] == 1:
        if without:
            return last
        last -= 1
    return last if highest else int(rng.integers(last + 1))


def shown(pruning: Mapping[str, float]) -> str:
    """``layer1.0 removed, layer2.1.conv1 −50 %``."""
    parts = [f"{name} removed" if part == 1 else f"{name} −{part:.0%}" for name, part in pruning.items()]
    return ", ".join(parts) or "not pruned"
