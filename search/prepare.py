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
    digest,
    outputs_read,
)
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.events import Listener
from bitfront.search.measuring.accuracy import BATCH, FIRST_STAGE, Scorer
from bitfront.search.measuring.evaluate import Evaluator
from bitfront.search.measuring.given import Given, open_given
from bitfront.search.measuring.holdout import split
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
from bitfront.search.run_folder.identity import check_folder, identify, metric_name, write_run
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
        UsageError: If the run folder belongs to something else, or an engine is asked for where there is none.
        DataError: If there is too little evaluation data.
        WorkloadError: If the metric declares its outputs as nothing that is known.
        BackendError: If neither the given file nor FP32 can be compiled.
        OutputError: If the run folder cannot be written.
    """
    read = outputs_read(workload.metric)
    watch = Stopwatch(before_s=earlier_split_s(options.out) if options.resume else None)
    options, withheld = _offered(backend, options, listener)
    device = backend.fingerprint().to_json()
    identity = _identity(workload, lowerer, device, options)
    earlier = check_folder(options.out, identity, resume=options.resume)
    created = earlier["created"] if earlier else datetime.now(UTC).isoformat(timespec="seconds")
    study_name = f"search-{digest(identity, options.budget.to_json())[:16]}"

    parts = split(workload.evaluation, options.holdout, options.seed)
    store = ContentStore(options.out / "cache")
    builder = _builder(workload, lowerer, options.passes, store, watch, listener) if options.passes else None
    runner = _runner(workload, lowerer, backend, options, _measurements(store, identity), watch, builder)
    given = _given(runner, listener)
    _check_engine(given, backend, options)
    search_scorer, held_back_scorer = _scorers(parts, workload.metric, lowerer.reference)
    write_run(options.out, identity, study=study_name, created=created)
    _check_storage(options, study_name)
    header = {
        "name": workload.name,
        "created": created,
        "model": _model_json(lowerer),
        "backend": {"name": backend.name, "dialect": backend.dialect, "device": device},
        "settings": _settings_json(workload.metric, options, withheld, parts, command),
        "budget": options.budget.to_json(),
    }
    return Session(
        options=options,
        listener=listener,
        runner=runner,
        given=given,
        evaluator=Evaluator(runner, search_scorer, options.budget, given, scoring=options.policy.scoring),
        rerun=Rerun(scorer=held_back_scorer, backend=options.backend),
        record=Record(options.out, header),
        store=store,
        calibration=workload.calibration,
        unseen=parts[0].inputs,
        metric=metric_name(workload.metric),
        outputs_read=read,
        builder=builder,
        study_name=study_name,
        earlier_study=earlier["study"] if earlier else None,
    )


def _identity(workload: Workload, lowerer: Lowerer, device: Mapping[str, Any], options: RunOptions) -> dict[str, str]:
    """What the run folder belongs to."""
    identity = identify(workload, lowerer.reference.fingerprint, device, options)
    if (given := lowerer.reference.given_artifact) is not None:
        # Files of other bytes may have one normalised form; ratios are to the file.
        identity |= {GIVEN_FILE: digest(given.content)}
    if options.policy != DEFAULTS:
        identity |= {"the search policy": digest(repr(options.policy))}
    return identity


def _runner(
    workload: Workload,
    lowerer: Lowerer,
    backend: Backend,
    options: RunOptions,
    measurements: MeasurementCache,
    watch: Stopwatch,
    builder: VariantBuilder | None,
) -> ModelRunner:
    batch = _first_batch(workload.calibration, options.batch_size)
    return ModelRunner(
        lowerer=lowerer,
        backend=backend,
        inputs=lowerer.reference.batching.feed(batch),
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


def _scorers(parts: tuple[Labelled, Labelled], metric: Metric, reference: ReferenceModel) -> tuple[Scorer, Scorer]:
    """Scorers of the search's and of the held-back part of the evaluation data."""
    batch = reference.fixed_batch or BATCH
    first_stage = -(-FIRST_STAGE // batch) * batch
    search_part, held_back = (
        Scorer(part, metric, batch=batch, first_stage=first_stage, name=name, batching=reference.batching)
        for part, name in zip(parts, ("the search's evaluation data", "the held-back data"), strict=True)
    )
    return search_part, held_back


def _check_storage(options: RunOptions, study_name: str) -> None:
    """Open and write the database now: one that refuses shows before calibration, not after it."""
    storage = options.storage or default_storage(options.out)
    Study(storage, study_name, Space(groups=(), edges=()), RandomSampler(seed=0)).close()


def _settings_json(
    metric: Metric,
    options: RunOptions,
    withheld: Mapping[str, str],
    parts: tuple[Labelled, Labelled],
    command: str,
) -> dict[str, Any]:
    """What results say of how they came about."""
    return {
        "threads": options.threads,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "trials": options.trials,
        "time_limit_s": options.time_limit_s,
        "precisions": [precision.value for precision in options.precisions],
        "withheld": withheld,
        "metric": metric_name(metric),
        "calibration": options.calibration.to_json(),
        "sensitivity_samples": options.sensitivity_samples,
        "holdout_samples": len(parts[1]),
        "search_samples": len(parts[0]),
        "timing": {"search": QUICK.to_json(), "finalists": CLOSE.to_json()},
        "passes": options.passes.to_json() if options.passes else None,
        "command": command,
    }


def _given(runner: ModelRunner, listener: Listener) -> Given:
    """What everything is compared with; the listener is told where it is not the file as given."""
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
    """For a workload that has a torch module and training inputs, as ``search.inputs`` saw to."""
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


def _measurements(store: ContentStore, identity: Mapping[str, str]) -> MeasurementCache:
    def key(names: Sequence[str], *more: Any) -> str:
        return digest({name: identity[name] for name in names if name in identity}, list(more))

    # What is kept is one version's of this engine, too: an update may write, compile, time or score otherwise.
    runtime = ("the device", "--backend", "the backend's code", "--threads")
    measuring = engine_code("backends")
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
        scoring=key((*runtime, "the evaluation data", "the metric", "--seed", "--holdout"), measuring),
    )


def _first_batch(calibration: Inputs, batch_size: int) -> Inputs:
    short = [name for name, array in calibration.items() if len(array) < batch_size]
    if short:
        raise DataError(
            f"calibration input '{short[0]}': {len(calibration[short[0]])} samples do not fill a batch of {batch_size}",
            "give more calibration samples or a smaller --batch-size",
        )
    return {name: array[:batch_size] for name, array in calibration.items()}


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
