"""Puts a run together, and checks it before anything expensive begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
from optuna.samplers import RandomSampler

from bitfront.backends.affinity import available_cores
from bitfront.backends.base import Backend
from bitfront.backends.sequences import Recurrence
from bitfront.core import (
    FP32,
    BackendError,
    ContentStore,
    DataError,
    Inputs,
    Labelled,
    LoweringError,
    Metric,
    Precision,
    UsageError,
    Workload,
    as_metric,
    digest,
)
from bitfront.core.batching import median_batch
from bitfront.core.metric import ComparedWith
from bitfront.core.ragged import is_ragged
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.events import Listener
from bitfront.search.measuring.accuracy import BATCH, FIRST_STAGE, Scorer
from bitfront.search.measuring.evaluate import Evaluator
from bitfront.search.measuring.given import Given, open_given
from bitfront.search.measuring.given_outputs import GivenOutputs
from bitfront.search.measuring.holdout import split_holdout
from bitfront.search.measuring.measurement_cache import MeasurementCache
from bitfront.search.measuring.runner import QUICK, ModelRunner
from bitfront.search.measuring.stopwatch import Stopwatch
from bitfront.search.options import RunOptions
from bitfront.search.passes.base import pass_context
from bitfront.search.passes.options import PassOptions
from bitfront.search.passes.trainings import TrainingBudget, Trainings
from bitfront.search.policy.config import DEFAULTS
from bitfront.search.results.finalists import CLOSE, Rerun
from bitfront.search.results.record import Record, earlier_split_s
from bitfront.search.run_folder.identity import check_folder, identify, write_run
from bitfront.search.run_folder.sources import engine_code
from bitfront.search.run_folder.storage import default_storage
from bitfront.search.run_folder.study import Study
from bitfront.search.session import Session
from bitfront.search.space.space import Space
from bitfront.search.variants.builder import VariantBuilder, VariantStore
from bitfront.search.variants.pipeline import PassPipeline

if TYPE_CHECKING:
    from torch import nn

GIVEN_FILE = "the file as given"  # in a run's identity


def prepare(
    workload: Workload, lowerer: Lowerer, backend: Backend, options: RunOptions, listener: Listener, command: str
) -> Session:
    """Check the folder, split the data, compile the given network.

    Raises:
        UsageError: If the run folder belongs to something else, a limit is about a metric of the other direction, or an
            engine is asked for where there is none.
        DataError: If there is too little evaluation data.
        WorkloadError: If the metric declares its outputs as nothing that is known.
        BackendError: If neither the given file nor FP32 can be compiled.
        OutputError: If the run folder cannot be written.
    """
    metric = as_metric(workload.metric)
    options.budget.refuse_other_direction(metric)
    watch = Stopwatch(before_s=earlier_split_s(options.out) if options.resume else None)
    options, withheld = _offered(backend, options, listener)
    device = backend.fingerprint().to_json()
    identity = _identity(workload, lowerer, device, options)
    earlier = check_folder(options.out, identity, resume=options.resume)
    created = earlier["created"] if earlier else datetime.now(UTC).isoformat(timespec="seconds")
    study_name = f"search-{digest(identity, options.budget.to_json())[:16]}"

    data = dict(getattr(workload, "data_sources", {}))
    timed = _timed_batch(workload.calibration, options.batch_size)
    if any(map(is_ragged, workload.calibration.values())):
        shapes = ", ".join(f"{name} {array[0].shape}" for name, array in timed.items())
        data["timing"] = {"form": "median", "text": f"a sample of median size: {shapes}"}
        listener.warn(f"calibration samples differ in shape: latency is measured on {data['timing']['text']}")
    parts = split_holdout(workload.evaluation, options.holdout, options.seed)
    store = ContentStore(options.out / "cache")
    builder = _builder(workload, lowerer, options.passes, store, watch, listener) if options.passes else None
    measurements = _measurements(store, identity, metric)
    runner = _runner(timed, lowerer, backend, options, measurements, watch, builder)
    given = _given(runner, listener)
    _check_engine(given, backend, options)
    recurrence = getattr(workload, "recurrence", None)
    search_scorer, held_out_scorer = _scorers(parts, metric, runner, given, store, recurrence)
    write_run(options.out, identity, study=study_name, created=created)
    _check_storage(options, study_name)
    header = {
        "name": workload.name,
        "created": created,
        "model": _model_json(lowerer),
        "backend": {"name": backend.name, "dialect": backend.dialect, "device": device},
        "settings": _settings_json(metric, options, withheld, data, parts, command),
        "budget": options.budget.to_json(),
    }
    return Session(
        options=options,
        listener=listener,
        runner=runner,
        given=given,
        evaluator=Evaluator(
            runner, search_scorer, options.budget, given, options.policy, preference=options.preference
        ),
        rerun=Rerun(scorer=held_out_scorer, backend=options.backend),
        record=Record(options.out, header, metric),
        store=store,
        calibration=workload.calibration,
        unseen=parts[0].inputs,
        metric=metric,
        outputs_read=metric.outputs_are,
        builder=builder,
        study_name=study_name,
        earlier_study=earlier["study"] if earlier else None,
    )


def _identity(workload: Workload, lowerer: Lowerer, device: Mapping[str, Any], options: RunOptions) -> dict[str, str]:
    """Parts of a run's identity, to which its folder belongs."""
    identity = identify(workload, lowerer.reference.fingerprint, device, options)
    if (given := lowerer.reference.given_artifact) is not None:
        # Files of other bytes may have one normalised form; ratios are to the file.
        identity |= {GIVEN_FILE: digest(given.content)}
    if options.policy != DEFAULTS:
        identity |= {"the search policy": digest(repr(options.policy))}
    return identity


def _runner(
    timed: Inputs,
    lowerer: Lowerer,
    backend: Backend,
    options: RunOptions,
    measurements: MeasurementCache,
    watch: Stopwatch,
    builder: VariantBuilder | None,
) -> ModelRunner:
    return ModelRunner(
        lowerer=lowerer,
        backend=backend,
        inputs=lowerer.reference.batching.feed(timed),
        threads=options.threads,
        batch_size=options.batch_size,
        cores=max(options.threads, available_cores()),
        measurements=measurements,
        watch=watch,
        variants=builder.variants if builder else {},
    )


def _check_engine(given: Given, backend: Backend, options: RunOptions) -> None:
    """Refuse to keep engines where there are none."""
    if options.save_engine and given.compiled.engine() is None:
        raise UsageError(
            f"--save-engine: {backend.name} has no engine file of its own",
            "leave the option out: the run folder's models/ holds what it runs",
        )


def _scorers(
    parts: tuple[Labelled, Labelled],
    metric: Metric,
    runner: ModelRunner,
    given: Given,
    store: ContentStore,
    recurrence: Recurrence | None,
) -> tuple[Scorer, Scorer]:
    """Scorers of the search's and of the held-out part of the evaluation data."""
    reference = runner.lowerer.reference
    batch = reference.fixed_batch or BATCH
    first_stage = -(-FIRST_STAGE // batch) * batch

    def scorer(part: Labelled, name: str) -> Scorer:
        answers = None
        if metric.compared_with is not ComparedWith.LABELS:
            key = digest(runner.measurements.scoring, given.artifact, name, batch)
            answers = GivenOutputs(lambda: runner.compile_to_score(given.model), store, key)
        return Scorer(
            part,
            metric,
            batch=batch,
            first_stage=first_stage,
            name=name,
            batching=reference.batching,
            recurrence=recurrence,
            given=answers,
        )

    search_part, held_out = parts
    return scorer(search_part, "the search's evaluation data"), scorer(held_out, "the held-out data")


def _check_storage(options: RunOptions, study_name: str) -> None:
    """Open and write the database now: one that refuses shows before calibration, not after it."""
    storage = options.storage or default_storage(options.out)
    Study(storage, study_name, Space(groups=(), edges=()), RandomSampler(seed=0)).close()


def _settings_json(
    metric: Metric,
    options: RunOptions,
    withheld: Mapping[str, str],
    data: Mapping[str, Mapping[str, str]],
    parts: tuple[Labelled, Labelled],
    command: str,
) -> dict[str, Any]:
    """Settings of a run, as results tell them."""
    return {
        "threads": options.threads,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "trials": options.trials,
        "time_limit_s": options.time_limit_s,
        "precisions": [precision.value for precision in options.precisions],
        "withheld": withheld,
        **metric.settings(),
        "calibration": options.calibration.to_json(),
        "data": data,
        "sensitivity_samples": options.sensitivity_samples,
        "holdout_samples": len(parts[1]),
        "search_samples": len(parts[0]),
        "timing": {"search": QUICK.to_json(), "finalists": CLOSE.to_json()},
        "passes": options.passes.to_json() if options.passes else None,
        "command": command,
    }


def _given(runner: ModelRunner, listener: Listener) -> Given:
    """Given network as the runner has it; the listener is told where it is not the file as given."""
    quantisable, reference = runner.lowerer.quantisable, runner.lowerer.reference
    try:
        fp32 = runner.lower(quantisable.spread({group.name: FP32 for group in quantisable.groups}))
        given = open_given(reference.given_artifact, fp32, runner.compile, runner.inputs)
    except (LoweringError, BackendError) as error:
        raise BackendError(f"the FP32 network failed: {error.message}", error.hint) from error
    if given.refused:
        listener.warn(
            f"{runner.backend.name} does not run '{reference.source}' as given ({given.refused}): "
            "ratios and losses of accuracy are to its FP32 form instead"
        )
    return given


def _builder(
    workload: Workload,
    lowerer: Lowerer,
    options: PassOptions,
    store: ContentStore,
    watch: Stopwatch,
    listener: Listener,
) -> VariantBuilder:
    """Builder of a workload that has a torch module and training inputs, as ``search.inputs`` saw to."""
    context = pass_context(
        cast("nn.Module", workload.model),
        lowerer.reference.fingerprint,
        getattr(workload, "training"),  # noqa: B009 - not in the protocol
        students=getattr(workload, "students", {}),
        augment=getattr(workload, "augment", {}),
        trainings=Trainings(store, TrainingBudget(limit_s=options.limit_s), listener.step),
    )
    pipeline = PassPipeline(context, lowerer, workload.name, options.passes)
    return VariantBuilder(options=options, pipeline=pipeline, variants=VariantStore(pipeline, store, watch))


def _offered(backend: Backend, options: RunOptions, listener: Listener) -> tuple[RunOptions, dict[str, str]]:
    """The options without precisions that gain nothing on this backend, and those with their reasons."""
    reasons = {
        p: why
        for p, why in backend.unprofitable_precisions().items()
        if p in options.precisions and p is not Precision.FP32
    }
    for precision, reason in reasons.items():
        listener.warn(f"{precision} is left out on {backend.name}: {reason}")
    kept = tuple(precision for precision in options.precisions if precision not in reasons)
    return replace(options, precisions=kept), {precision.value: reason for precision, reason in reasons.items()}


def _measurements(store: ContentStore, identity: Mapping[str, str], metric: Metric) -> MeasurementCache:
    def key(names: Sequence[str], *more: Any) -> str:
        return digest({name: identity[name] for name in names if name in identity}, list(more))

    # What is kept is one version's of this engine, too: an update may write, compile, time or score otherwise.
    runtime = ("--batch-axis", "--state", "the device", "--backend", "the backend's code", "--threads")
    measuring = engine_code("backends")
    # Scores against the given network's outputs are about that network too.
    against = () if metric.compared_with is ComparedWith.LABELS else ("the network", GIVEN_FILE)
    return MeasurementCache(
        store,
        lowering=key(
            ("the network", "the calibration data", "the calibration settings", *runtime),
            *(engine_code("core", "lowering", "backends/ort"), onnx.__version__, np.__version__),
        ),
        timing=key(
            ("the network", GIVEN_FILE, *runtime, "--batch-size", "the calibration data"),
            *(QUICK.to_json(), CLOSE.to_json(), measuring),
        ),
        scoring=key((*runtime, "the evaluation data", "the metric", "--seed", "--holdout", *against), measuring),
    )


def _timed_batch(calibration: Inputs, batch_size: int) -> Inputs:
    """The samples that latency is measured on, as many as a batch has."""
    short = [name for name, array in calibration.items() if len(array) < batch_size]
    if short:
        raise DataError(
            f"calibration input '{short[0]}': {len(calibration[short[0]])} samples do not fill a batch of {batch_size}",
            "give more calibration samples or a smaller --batch-size",
        )
    return median_batch(calibration, batch_size)


def _model_json(lowerer: Lowerer) -> dict[str, Any]:
    quantisable = lowerer.quantisable
    group_of = {layer: group.name for group in quantisable.groups for layer in group.layers}
    return {
        "source": lowerer.reference.source,
        "fingerprint": lowerer.reference.fingerprint,
        "parameters": sum(layer.parameters for layer in quantisable.layers),
        "layers": [
            {"name": layer.name, "op": layer.op, "parameters": layer.parameters, "group": group_of[layer.name]}
            for layer in quantisable.layers
        ],
    }
