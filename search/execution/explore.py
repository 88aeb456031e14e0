"""The search itself: from the first calibration to the last candidate tried.

    the given network measured → calibration → sensitivity → space → baselines → seeds → study

With passes, the space has prunings too, and variants are made along the way (``joint``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bitfront.core import Scheme
from bitfront.search.execution.explorer import Explorer, TrialContext
from bitfront.search.execution.joint import JointSearch
from bitfront.search.execution.prune_spaces import PruneContext, prune_variables
from bitfront.search.execution.sensitivities import SensitivityContext, calibrate_and_score, space_of
from bitfront.search.execution.variants import VariantContext
from bitfront.search.multi_backend.translate import project_config
from bitfront.search.policy.allocation import RunLimits
from bitfront.search.proposals.sampler import FrontSampler
from bitfront.search.results import finalize
from bitfront.search.results.finalize import INTERRUPTED
from bitfront.search.session import Session
from bitfront.search.space.only_fp32 import why_only_fp32
from bitfront.search.space.space import Assignment, Space
from bitfront.sensitivity.table import SensitivityTable


def explore(session: Session, starts: Sequence[Mapping[str, Scheme]] = ()) -> str | None:
    """Run the search up to the finalists.

    Args:
        session: What ``search.prepare`` made.
        starts: Configs (layer name → scheme) worth trying first, after the baselines.

    Returns:
        What ended it early, else None.
    """
    try:
        stopped = _search(session, starts)
        finalize.checkpoint(session)
    except KeyboardInterrupt:
        return INTERRUPTED
    return stopped


def trial_context(session: Session) -> TrialContext:
    """Return what it takes to try candidates."""
    options = session.options
    return TrialContext(
        evaluator=session.evaluator,
        watch=session.runner.watch,
        listener=session.listener,
        metric=session.metric,
        checkpoint=lambda: finalize.checkpoint(session),
        checkpoint_due=lambda: session.record.due,
        limits=RunLimits(trials=options.trials, time_limit_s=options.time_limit_s, config=options.policy.allocation),
        constraints=options.budget,
        seed=options.seed,
        policy=options.policy,
        preference=options.preference,
    )


def sensitivity_context(session: Session) -> SensitivityContext:
    """Return what it takes to score schemes."""
    options = session.options
    return SensitivityContext(
        runner=session.runner,
        listener=session.listener,
        store=session.store,
        calibration=session.calibration,
        outputs_read=session.outputs_read,
        precisions=options.precisions,
        samples=options.sensitivity_samples,
    )


def _search(session: Session, starts: Sequence[Mapping[str, Scheme]]) -> str | None:
    session.listener.phase("given network", None)
    session.evaluator.measure_given()
    table = calibrate_and_score(sensitivity_context(session))
    session.record.write_sensitivity(table)
    space = space_of(session.runner, table, session.options.precisions)
    if all(len(group.schemes) == 1 for group in space.groups):
        dropped = (f"{entry.group} {entry.scheme.text}: {entry.reason}" for entry in space.dropped)
        session.record.reasons = why_only_fp32(session.runner.lowerer, session.options.precisions, dropped)
        session.listener.warn(session.record.reasons[0])
    if session.builder is not None:
        return _search_jointly(session, space, table, starts)
    return _search_precisions(session, space, starts)


def _adapted(session: Session, space: Space, starts: Sequence[Mapping[str, Scheme]]) -> list[Assignment]:
    quantisable = session.runner.lowerer.quantisable
    return [project_config(layers, quantisable, space) for layers in starts]


def _search_precisions(session: Session, space: Space, starts: Sequence[Mapping[str, Scheme]]) -> str | None:
    context, options = trial_context(session), session.options
    sampler = FrontSampler(space, session.evaluator.limits, options.seed, options.policy.sampler)
    study = session.open_study(space, sampler)
    explorer = Explorer(context, space, study)
    try:
        session.listener.phase("search", options.trials)
        explorer.baselines()
        if space.cardinality == 1:
            return None
        seeds = explorer.seeds(_adapted(session, space, starts), session.earlier_trials(space))
        return explorer.all(seeds) or explorer.sample(lambda: sampler.exhausted(study.live))
    finally:
        study.close()


def _search_jointly(
    session: Session, space: Space, table: SensitivityTable, starts: Sequence[Mapping[str, Scheme]]
) -> str | None:
    """Search over precisions and variants; prunings are measured as the precisions are."""
    builder, options = session.builder, session.options
    assert builder is not None
    if builder.options.pruning:
        pruning = PruneContext(
            runner=session.runner,
            listener=session.listener,
            store=session.store,
            unseen=session.unseen,
            precisions=options.precisions,
            samples=options.sensitivity_samples,
            time_limit_s=options.time_limit_s,
            config=options.policy.pruning,
        )
        prunes, sparsities = prune_variables(pruning, builder, table.divergence_metric)
        session.record.write_sparsity(sparsities)
        space = space.with_prunes(prunes)
    joint = JointSearch(
        trial_context(session),
        VariantContext(
            builder=builder,
            open_study=session.open_study,
            layers=session.runner.layers,
            unseen=session.unseen,
            divergence_samples=options.sensitivity_samples,
            measure=table.divergence_metric,
            sensitivities=sensitivity_context(session),
        ),
        space,
    )
    try:
        return joint.run(_adapted(session, space, starts), session.earlier_trials(space))
    finally:
        joint.close()
