"""Calibrates a network, scores what every scheme costs it, and makes a space of what is left."""

from __future__ import annotations

from dataclasses import dataclass

from bitfront.core import ContentStore, Inputs, OutputsRead, Precision
from bitfront.search.events import Listener
from bitfront.search.measuring.runner import ModelRunner
from bitfront.search.measuring.stopwatch import Kind
from bitfront.search.measuring.timed import TimedBackend, TimedLowerer
from bitfront.search.space.space import Space, build_space
from bitfront.sensitivity.divergence_metric import output_readings
from bitfront.sensitivity.score import planned_steps, score_sensitivities
from bitfront.sensitivity.table import SensitivityTable


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityContext:
    """Values that scoring schemes needs.

    Attributes:
        runner: Writes and runs networks.
        listener: Hears of progress.
        store: The run's cache.
        calibration: Unlabelled inputs that networks are calibrated and scored on.
        outputs_read: What the metric reads of the outputs.
        precisions: What layers may take.
        samples: Calibration samples of each score.
        threads: Of the runtime.
    """

    runner: ModelRunner
    listener: Listener
    store: ContentStore
    calibration: Inputs
    outputs_read: OutputsRead
    precisions: tuple[Precision, ...]
    samples: int
    threads: int


def calibrate_and_score(context: SensitivityContext) -> SensitivityTable:
    """Calibrate the given network, and score every scheme of every group of it."""
    runner, listener, precisions = context.runner, context.listener, context.precisions
    listener.phase("calibrate", None)
    with runner.watch.timed(Kind.CALIBRATION):
        offered = {scheme for group in runner.lowerer.quantisable.groups for scheme in group.schemes}
        runner.lowerer.prepare(sorted(scheme for scheme in offered if scheme.precision in precisions))
    listener.phase("sensitivity", planned_steps(runner.lowerer.quantisable, precisions))
    return score_network(context, "", context.samples)


def score_network(context: SensitivityContext, variant: str, samples: int) -> SensitivityTable:
    """Score every scheme of every group of a network.

    Args:
        context: What it takes.
        variant: Its id; empty for the given one.
        samples: Calibration samples.
    """
    runner = context.runner
    return score_sensitivities(
        TimedLowerer(runner.writer(variant), runner.watch),
        TimedBackend(runner.backend.proxy_backend(), runner.watch),
        context.calibration,
        samples=samples,
        read=output_readings(runner.writer(variant).reference.proto, context.outputs_read),
        precisions=context.precisions,
        threads=context.threads,
        store=context.store,
        on_step=context.listener.step,
        batching=runner.lowerer.reference.batching,
    )


def space_of(
    runner: ModelRunner, table: SensitivityTable, precisions: tuple[Precision, ...], variant: str = ""
) -> Space:
    """Make the space of what may be decided about a network.

    Args:
        runner: Writes it.
        table: Its losses.
        precisions: What layers may take.
        variant: Its id; empty for the given one.
    """
    with runner.watch.timed(Kind.CALIBRATION):
        lowerer = runner.writer(variant)
        return build_space(lowerer.quantisable, table, precisions, lowerer.weight_bytes, lowerer.compute_type)
