"""What pruning saves: a few random prunings of the given network, untrained, timed and never scored.

The latency model learns from them how each layer's cost falls with what stays of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from precision import EngineError, Precision
from search.trial import COST, Candidate

if TYPE_CHECKING:
    from search.networks.joint import JointSearch

_MOST = 10


def learn_costs(joint: JointSearch) -> None:
    """Time them at INT8, and one, with every channel group at its highest sparsity, in FP32 too."""
    session, space, explorer = joint.session, joint.space, joint.explorer
    rng = np.random.default_rng([session.options.seed, len(space.prunes)])
    known = {trial.candidate.key for trial in explorer.trials if trial.candidate.origin == COST}
    low, high = space.uniform(Precision.INT8), space.uniform(Precision.FP32)
    for number in range(min(2 + len(space.prunes) // 2, _MOST)):
        if explorer.late:
            return
        code = [int(rng.integers(len(prune.sparsities))) for prune in space.prunes]
        if number == 0:
            code = [len(p.sparsities) - 1 if p.sparsities[-1] < 1 else 0 for p in space.prunes]
        whole = space.canonical((*space.choices(space.encode(low)), *code))
        pruning = space.pruning(whole)
        try:
            network = joint.making.made.add([joint.making.maker.prune_step(pruning)])
        except EngineError as error:
            session.listener.warn(f"pruning {shown(pruning)}: {error.message}")
            continue
        for choices in (low, high)[: 2 if number == 0 and low != high else 1]:
            candidate = Candidate(origin=COST, choices=choices, pruning=pruning, network=network)
            if candidate.key not in known:
                explorer.attempt(candidate)


def shown(pruning: Mapping[str, float]) -> str:
    """``layer1.0 removed, layer2.1.conv1 −50 %``."""
    parts = [f"{name} removed" if part == 1 else f"{name} −{part:.0%}" for name, part in pruning.items()]
    return ", ".join(parts) or "not pruned"
