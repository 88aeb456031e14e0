"""Everything one run works with, put together and checked before anything expensive begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    OutputsRead,
    Precision,
    UsageError,
    Workload,
    digest,
    outputs_read,
)
from bitfront.core.batching import take_rows
from bitfront.core.ragged import is_ragged, median_sample, rows_like
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.accuracy import BATCH, FIRST_STAGE, Scorer
from bitfront.search.evaluate import Evaluator
from bitfront.search.events import Listener
from bitfront.search.given import Given, open_given
from bitfront.search.holdout import split
from bitfront.search.identity import check_folder, identify, metric_name, write_run
from bitfront.search.measurement_cache import MeasurementCache
from bitfront.search.options import PassOptions, RunOptions
from bitfront.search.proposals.sampler import FrontSampler
from bitfront.search.proposals.space import Space
from bitfront.search.results.finalists import CLOSE, Rerun
from bitfront.search.results.record import Record, earlier_split_s
from bitfront.search.runner import QUICK, ModelRunner
from bitfront.search.sources import engine_code
from bitfront.search.stopwatch import Stopwatch
from bitfront.search.storage import default_storage
from bitfront.search.study import Study, past_trials
from bitfront.search.timed import TimedSampler
from bitfront.search.trial import Trial
from bitfront.search.variants.made import MadeNetworks, Making

if TYPE_CHECKING:
    from torch import nn

GIVEN_FILE = "the file as given"  # in a run's identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One run's things.

    Attributes:
        options: What was asked for.
        listener: Hears of progress.
        runner: What candidates are tried on.
        given: What they are compared with.
        evaluator: Tries them and remembers them.
        rerun: How finalists are measured again.
        record: Writes the run folder.
        store: The run's cache.
        calibration: Unlabelled inputs; often what the network was trained on.
        unseen: Inputs of the search's part of the evaluation data, without their labels; no pass trains on them.
        metric: The metric's name.
        outputs_read: What the metric reads of the network's outputs.
        making: Makes networks, where passes take part; else None.
        study_name: Name of the Optuna study.
        earlier_study: Name of the study of the run that is resumed; None for a fresh start.
    """

    options: RunOptions
    listener: Listener
    runner: ModelRunner
    given: Given
    evaluator: Evaluator
    rerun: Rerun
    record: Record
    store: ContentStore
    calibration: Inputs
    unseen: Inputs
    metric: str
    outputs_read: OutputsRead
    making: Making | None
    study_name: str
    earlier_study: str | None

    @property
    def storage(self) -> str:
        """Optuna storage URL."""
        return self.options.storage or default_storage(self.options.out)

    def open_study(self, space: Space, sampler: FrontSampler, family: str = "") -> Study:
        """The run's study of a space; its finished trials are the evaluator's from here on.

        Args:
            space: What may be decided.
            sampler: Proposes.
            family: The student architecture whose space it is; empty for the given network's.
        """
        name = f"{self.study_name}-{family}" if family else self.study_name
        study = Study(self.storage, name, space, TimedSampler(sampler, self.runner.watch), family)
        self.evaluator.trials.extend(study.trials())
        return study

    def earlier_trials(self, space: Space) -> list[Trial]:
        """Trials of the run that is resumed, where other budgets gave it another study."""
        if self.earlier_study in (None, self.study_name):
            return []
        return past_trials(self.storage, str(self.earlier_study), space)


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
    reference = lowerer.reference
    identity = identify(workload, reference.fingerprint, device, options)
    if reference.given is not None:
        # Files of other bytes may have one normalised form; ratios are to the file.
        identity |= {GIVEN_FILE: digest(reference.given)}
    earlier = check_folder(options.out, identity, resume=options.resume)
    created = earlier["created"] if earlier else datetime.now(UTC).isoformat(timespec="seconds")
    study_name = f"search-{digest(identity, options.budget.to_json())[:16]}"

    data = dict(getattr(workload, "data_sources", {}))
    timed = _timed_batch(workload.calibration, options.batch_size)
    if any(map(is_ragged, workload.calibration.values())):
        shapes = ", ".join(f"{name} {array[0].shape}" for name, array in timed.items())
        data["timing"] = {"form": "median", "text": f"a sample of median size: {shapes}"}
        listener.warn(f"calibration samples differ in shape: latency is measured on {data['timing']['text']}")
    search_part, held_part = split(workload.evaluation, options.holdout, options.seed)
    store = ContentStore(options.out / "cache")
    making = _making(workload, lowerer, options.passes, store, watch, listener) if options.passes else None
    runner = ModelRunner(
        lowerer=lowerer,
        backend=backend,
        inputs=reference.batching.feed(timed),
        threads=options.threads,
        batch_size=options.batch_size,
        cores=max(options.threads, available_cores()),
        measurements=_measurements(store, identity),
        watch=watch,
        made=making.made if making else {},
    )
    given = _given(runner, listener)
    if options.save_engine and given.compiled.engine() is None:
        raise UsageError(
            f"--save-engine: {backend.name} has no engine file of its own",
            "leave the option out: the run folder's models/ holds what it runs",
        )
    batch = reference.fixed_batch or BATCH
    first_stage = -(-FIRST_STAGE // batch) * batch
    scorers = [
        Scorer(part, workload.metric, batch=batch, first_stage=first_stage, name=name, batching=reference.batching)
        for part, name in ((search_part, "the search's evaluation data"), (held_part, "the held-back data"))
    ]
    write_run(options.out, identity, study=study_name, created=created)
    # Opened and written now: a database that refuses shows before calibration, not after it.
    storage = options.storage or default_storage(options.out)
    Study(storage, study_name, Space(groups=(), edges=()), RandomSampler(seed=0)).close()
    header = {
        "name": workload.name,
        "created": created,
        "model": _model_json(lowerer),
        "backend": {"name": backend.name, "dialect": backend.dialect, "device": device},
        "settings": {
            "threads": options.threads,
            "batch_size": options.batch_size,
            "seed": options.seed,
            "trials": options.trials,
            "time_limit_s": options.time_limit_s,
            "precisions": [precision.value for precision in options.precisions],
            "withheld": withheld,
            "metric": metric_name(workload.metric),
            "calibration": options.calibration.to_json(),
            "data": data,
            "sensitivity_samples": options.sensitivity_samples,
            "holdout_samples": len(held_part),
            "search_samples": len(search_part),
            "timing": {"search": QUICK.to_json(), "finalists": CLOSE.to_json()},
            "passes": options.passes.to_json() if options.passes else None,
            "command": command,
        },
        "budget": options.budget.to_json(),
    }
    return Session(
        options=options,
        listener=listener,
        runner=runner,
        given=given,
        evaluator=Evaluator(runner, scorers[0], options.budget, given),
        rerun=Rerun(scorer=scorers[1], backend=options.backend),
        record=Record(options.out, header),
        store=store,
        calibration=workload.calibration,
        unseen=search_part.inputs,
        metric=metric_name(workload.metric),
        outputs_read=read,
        making=making,
        study_name=study_name,
        earlier_study=earlier["study"] if earlier else None,
    )


def _given(runner: ModelRunner, listener: Listener) -> Given:
    """What everything is compared with; the listener is told where it is not the file as given."""
    quantisable, reference = runner.lowerer.quantisable, runner.lowerer.reference
    try:
        fp32 = runner.lower(quantisable.spread({group.name: FP32 for group in quantisable.groups}))
        given = open_given(reference.given, fp32, runner.compile, runner.inputs)
    except (LoweringError, BackendError) as error:
        raise BackendError(f"the FP32 network failed: {error.message}", error.hint) from error
    if given.refused:
        listener.warn(
            f"{runner.backend.name} does not run '{reference.source}' as given ({given.refused}): "
            "ratios and losses of accuracy are to its FP32 form instead"
        )
    return given


def _making(
    workload: Workload,
    lowerer: Lowerer,
    options: PassOptions,
    store: ContentStore,
    watch: Stopwatch,
    listener: Listener,
) -> Making:
    """What makes networks of a workload that has a torch module and training inputs, as ``search.inputs`` saw to."""
    from bitfront.passes.data import TrainingData
    from bitfront.search.variants.maker import Maker
    from bitfront.search.variants.trainings import TrainBudget

    found: Inputs | Labelled = workload.training  # type: ignore[attr-defined]
    if isinstance(found, Labelled):
        data = TrainingData(inputs=found.inputs, labels=found.labels)
    else:
        data = TrainingData(inputs=found)
    maker = Maker(
        module=cast("nn.Module", workload.model),
        given=lowerer,
        data=data,
        students=getattr(workload, "students", {}),
        store=store,
        budget=TrainBudget(limit_s=options.limit_s),
        name=workload.name,
        augment=getattr(workload, "augment", {}),
        importance=options.importance,
        on_step=listener.step,
    )
    return Making(options=options, maker=maker, made=MadeNetworks(maker, store, watch), store=store)


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
            *(engine_code("core", "lowering"), onnx.__version__, np.__version__),
        ),
        timing=key(
            ("the network", GIVEN_FILE, *runtime, "--batch-size", "the calibration data"),
            *(QUICK.to_json(), CLOSE.to_json(), measuring),
        ),
        scoring=key((*runtime, "the evaluation data", "the metric", "--seed", "--holdout"), measuring),
    )


def _timed_batch(calibration: Inputs, batch_size: int) -> Inputs:
    """The samples that latency is measured on: the first ones, or those of median size where shapes differ."""
    short = [name for name, array in calibration.items() if len(array) < batch_size]
    if short:
        raise DataError(
            f"calibration input '{short[0]}': {len(calibration[short[0]])} samples do not fill a batch of {batch_size}",
            "give more calibration samples or a smaller --batch-size",
        )
    rows = rows_like(calibration, median_sample(calibration), batch_size)
    return {name: take_rows(array, rows) for name, array in calibration.items()}


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
