"""Costs that pruning saves: a few random prunings of the given network, untrained, timed and never scored.

The latency model learns from them how each layer's cost falls with what stays of it. Residual branches are there, or
one random half of them is gone, or the other half: each is another architecture, and takes seconds to export.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from bitfront.core import EngineError, Precision
from bitfront.search.execution.explorer import Explorer
from bitfront.search.policy.config import DEFAULTS, PruningConfig
from bitfront.search.space.pruning import PruneVariable
from bitfront.search.space.space import Encoding, Space
from bitfront.search.trial import Candidate, Origin
from bitfront.search.variants.builder import VariantBuilder


def probe_prunings(space: Space, seed: int, config: PruningConfig = DEFAULTS.pruning) -> Iterator[Encoding]:
    """Yield prunings worth timing at INT8; every channel group of the first one is at its highest sparsity.

    Args:
        space: With prune variables.
        seed: Of the random draws.
        config: How many.
    """
    rng = np.random.default_rng([seed, len(space.prunes)])
    first = rng.random(len(space.prunes)) < config.removal_probability
    gone = (np.zeros_like(first), first, ~first)
    schemes = space.schemes(space.encode(space.uniform(Precision.INT8)))
    for number in range(min(2 + len(space.prunes) // 2, config.most_probes)):
        indices = [
            _sparsity_index(prune, bool(without), rng, highest=number == 0)
            for prune, without in zip(space.prunes, gone[number % len(gone)], strict=True)
        ]
        yield space.canonical((*schemes, *indices))


def learn_costs(explorer: Explorer, builder: VariantBuilder) -> None:
    """Time the probes at INT8, and the first of them in FP32 too."""
    context, space = explorer.context, explorer.space
    known = {trial.candidate.key for trial in explorer.trials if trial.candidate.origin is Origin.COST_PROBE}
    low, high = space.uniform(Precision.INT8), space.uniform(Precision.FP32)
    for number, probe in enumerate(probe_prunings(space, context.seed, context.policy.pruning)):
        if explorer.late:
            return
        pruning = space.pruning(probe)
        try:
            network = builder.variants.add([builder.prune_step(pruning)])
        except EngineError as error:
            context.listener.warn(f"pruning {pruning_text(pruning)}: {error.message}")
            continue
        for schemes in (low, high)[: 2 if number == 0 and low != high else 1]:
            candidate = Candidate(origin=Origin.COST_PROBE, schemes=schemes, pruning=pruning, variant=network)
            if candidate.key not in known:
                known.add(candidate.key)
                explorer.attempt(candidate)


def _sparsity_index(prune: PruneVariable, without: bool, rng: np.random.Generator, *, highest: bool) -> int:
    """Index of a sparsity: the whole gone where it may be and is to be, else a random or the highest part of it."""
    last = len(prune.sparsities) - 1
    if prune.sparsities[last] == 1:
        if without:
            return last
        last -= 1
    return last if highest else int(rng.integers(last + 1))


def pruning_text(pruning: Mapping[str, float]) -> str:
    """Return a pruning in words: ``layer1.0 removed, layer2.1.conv1 −50 %``."""
    parts = [f"{name} removed" if part == 1 else f"{name} −{part:.0%}" for name, part in pruning.items()]
    return ", ".join(parts) or "not pruned"
