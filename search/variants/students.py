"""Variants that structural passes propose: sparse weights, students. Each has a space of its own.

It races like a pruned network, at uniform precisions; once it has had its full training, precisions for its layers are
solved for under the same budgets. Latencies are ratios to the given network's.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from bitfront.core import Precision
from bitfront.search.explore import scored, space_of
from bitfront.search.passes.base import StructuralPass
from bitfront.search.proposals import seeds
from bitfront.search.proposals.space import Space
from bitfront.search.stopwatch import Kind
from bitfront.search.variants.halving import Contender

if TYPE_CHECKING:
    from bitfront.search.variants.joint import JointSearch

_SAMPLES = 64
_SEEDS = 6


def enter_proposals(joint: JointSearch, structural: StructuralPass) -> None:
    """Make every variant that a pass proposes, try it, and let it race.

    One without anything of the given network's is made only where there is time to train it.
    """
    for proposal in structural.proposals(joint.builder.context):
        if structural.from_scratch and (joint.explorer.late or not joint.may_train()):
            return
        contender = joint.made(proposal.label, [proposal.step], family=proposal.family)
        if contender is None:
            continue
        space = _space(joint, contender) if structural.own_layers else replace(joint.space, prunes=())
        explorer = joint.explorer_of(contender, space)
        uniform = [explorer.space.uniform(precision) for precision in (Precision.FP32, Precision.INT8, Precision.INT4)]
        joint.enter(contender, uniform, explorer)


def refine(joint: JointSearch, contender: Contender) -> None:
    """Solve for a trained student's precisions under the budgets, and try what comes of it."""
    explorer, session = joint.explorers[contender.family], joint.session
    budget, given_ms = session.options.budget, session.evaluator.reference_ms
    tried = {explorer.encoding(trial) for trial in contender.trials}
    solved = seeds.solver_seeds(
        explorer.space,
        explorer.model,
        max_ratio=budget.latency_ms / given_ms if budget.latency_ms is not None else None,
        max_bytes=budget.size_bytes,
    )
    with session.runner.watch.timed(Kind.SOLVER):
        found = list(islice(seeds.distinct(explorer.space, [solved], tried), _SEEDS))
    joint.try_on(contender, [schemes for _, schemes in found], explorer, origin="student")


def _space(joint: JointSearch, contender: Contender) -> Space:
    """Of precisions alone, their losses scored on the student as it is now."""
    session, network = joint.session, contender.network
    return space_of(session, scored(session, network, min(session.options.sensitivity_samples, _SAMPLES)), network)
