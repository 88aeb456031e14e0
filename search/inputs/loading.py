"""From what a person names on the command line to a workload in memory that fits its network.

Files and Python objects both end as a ``LoadedWorkload``: every array read once, checked against the normalised network
and cast.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lowering.export import export_reference
from lowering.faithful import faithful
from lowering.load import load_reference
from lowering.reference import Reference
from precision import (
    DataError,
    Inputs,
    Labelled,
    Metric,
    ModelError,
    UsageError,
    Workload,
    WorkloadError,
    top1,
)
from search.inputs.arrays import LABELS, check_classes, check_inputs, check_labels, read_npz
from search.inputs.passes import check_module, nothing_to_distil, read_pass_inputs
from search.inputs.source import Source
from search.inputs.workloads import DEFAULT_WORKLOAD, load_metric, load_workload, own_code
from search.options import PassOptions

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A source whose name and metric are known, with nothing expensive loaded yet.

    Attributes:
        source: What was asked for.
        label: Names the source in messages.
        name: For the run folder and reports.
        metric: How outputs are scored.
        workload: The Python object; None for an ONNX file.
    """

    source: Source
    label: str
    name: str
    metric: Metric
    workload: Workload | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedWorkload:
    """A ``Workload`` whose every part is in memory, checked.

    Attributes:
        name, model, calibration, evaluation, metric: As in ``Workload``.
        batch_size: Samples per timed inference that the workload asks for; None leaves it open.
        training: Inputs that passes train on, with int64 class numbers if there are labels; None without passes.
        students: Name → network to train by distillation, ``SmallNet-1``; empty without that pass.
        augment: Fields of ``passes.data.Augmentation``.
    """

    name: str
    model: torch.nn.Module | Path
    calibration: Inputs
    evaluation: Labelled
    metric: Metric
    batch_size: int | None = None
    training: Labelled | Inputs | None = None
    students: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    augment: Mapping[str, float] = field(default_factory=dict)


def open_source(source: Source) -> Opened:
    """Find the model file or the workload object.

    Raises:
        WorkloadError: If the workload or the metric cannot be found.
        UsageError: If a model comes without its data.
    """
    if source.model is None:
        label = source.workload or DEFAULT_WORKLOAD
        workload = load_workload(label, source.data)
        return Opened(
            source=source,
            label=f"workload '{label}'",
            name=str(workload.name),
            metric=own_code(f"workload '{label}': metric", lambda: workload.metric),
            workload=workload,
        )
    for option, value, use in (
        ("--eval", source.evaluation, "labelled inputs to score candidates with"),
        ("--calib", source.calibration, "inputs without labels to find activation ranges with"),
    ):
        if value is None:
            raise UsageError(
                f"{option} is missing: a search needs {use}",
                f"give {option} {option[2:]}.npz, with arrays named like the network's inputs"
                + (" and 'labels'" if option == "--eval" else ""),
            )
    metric = load_metric(source.metric or "top1")
    return Opened(source=source, label=str(source.model), name=source.model.stem, metric=metric, workload=None)


def load(
    opened: Opened, asked_batch: int | None, passes: PassOptions | None = None
) -> tuple[LoadedWorkload, Reference]:
    """Everything a search needs to know of a network and its data, checked.

    Args:
        opened: Where they are.
        asked_batch: The batch a PyTorch module is exported with where a dynamic one is impossible.
        passes: For which the workload's training inputs are read too.

    Raises:
        EngineError: A model, data or workload error.
    """
    source, metric = opened.source, opened.metric
    calibration: Inputs
    arrays: Inputs
    model: torch.nn.Module | Path
    if opened.workload is None:
        assert source.model is not None
        assert source.calibration is not None
        assert source.evaluation is not None
        reference = load_reference(source.model)
        calibration = check_inputs(read_npz(source.calibration), reference, str(source.calibration))
        reference = faithful(reference, calibration)
        arrays, where = read_npz(source.evaluation), str(source.evaluation)
        model = source.model
        wish = None
    else:
        workload = opened.workload
        calibration, model = _calibration(workload, opened.label), _model(workload, opened.label)
        if passes is not None:
            check_module(model, opened.label)
        reference = _reference(model, calibration, opened.name, asked_batch)
        calibration = check_inputs(calibration, reference, f"{opened.label}: calibration")
        reference = faithful(reference, calibration)
        where = f"{opened.label}: evaluation"
        labelled = own_code(where, lambda: workload.evaluation)
        if not isinstance(labelled, Labelled):
            raise WorkloadError(
                f"{where} is a {type(labelled).__name__}, expected precision.Labelled",
                "write Labelled(inputs={'input': x}, labels=y)",
            )
        arrays = {**labelled.inputs, LABELS: labelled.labels}
        wish = getattr(workload, "batch_size", None)
        if wish is not None and (not isinstance(wish, int) or wish < 1):
            raise WorkloadError(f"{opened.label}: expected a positive whole batch_size, got {wish!r}")
    loaded = LoadedWorkload(
        name=opened.name,
        model=model,
        calibration=calibration,
        evaluation=_evaluation(arrays, reference, metric, where),
        metric=metric,
        batch_size=wish,
    )
    return (loaded if passes is None else _with_passes(loaded, opened, reference, passes)), reference


def load_network(source: Source, skipped: Collection[str] | None = None) -> tuple[Reference, Inputs | None]:
    """The network, and the calibration inputs where the source has them; no evaluation data needed.

    Args:
        source: Where they are.
        skipped: Steps of normalising to leave out; None finds those that change what the network answers.

    Raises:
        EngineError: A model, data or workload error.
    """
    return load_to_score(source, skipped)[:2]


def load_to_score(
    source: Source, skipped: Collection[str] | None = None
) -> tuple[Reference, Inputs | None, Metric | None]:
    """The network, and the calibration inputs and the metric where the source has them; no evaluation data needed.

    Raises:
        EngineError: A model, data or workload error.
    """
    if source.model is not None:
        reference, inputs, metric = load_reference(source.model, skipped=skipped or ()), None, None
        if source.calibration is not None:
            inputs = check_inputs(read_npz(source.calibration), reference, str(source.calibration))
    else:
        name = source.workload or DEFAULT_WORKLOAD
        workload, label = load_workload(name, source.data), f"workload '{name}'"
        calibration, model = _calibration(workload, label), _model(workload, label)
        reference = _reference(model, calibration, str(workload.name), None, skipped or ())
        inputs = check_inputs(calibration, reference, f"{label}: calibration")
        metric = own_code(f"{label}: metric", lambda: workload.metric)
    return (faithful(reference, inputs) if skipped is None else reference), inputs, metric


def batch_size(asked: int | None, workload: LoadedWorkload, reference: Reference) -> int:
    """Samples per timed inference: the option, else the network's fixed batch, else the workload's wish, else 1.

    Raises:
        UsageError: If the option and a fixed batch disagree.
        DataError: If there is not enough evaluation data for one batch.
    """
    own = reference.fixed_batch
    if own is not None and asked is not None and asked != own:
        raise UsageError(
            f"--batch-size: got {asked}, but '{reference.source}' has a fixed batch of {own}",
            "leave the option out, or export the network with a dynamic batch",
        )
    size = own or asked or workload.batch_size or 1
    samples = min(len(workload.evaluation), *(len(array) for array in workload.calibration.values()))
    if size > samples:
        raise DataError(
            f"--batch-size: {size} is more than the {samples} samples there are to fill a batch",
            "give more samples or a smaller batch",
        )
    return size


def classes(reference: Reference) -> int | None:
    """Number of classes as the network's stored output shape says, None where it does not.

    Raises:
        DataError: If the first output can be no classifier's.
    """
    sizes = reference.output_shapes[reference.output_names[0]]
    if sizes is None:
        return None
    # (n, classes), or trailing axes of size 1 that a global pooling left behind.
    if len(sizes) < 2 or any(size not in (1, None) for size in sizes[2:]):
        raise not_a_classifier(reference, sizes)
    return sizes[1]


def not_a_classifier(reference: Reference, shape: tuple[int | None, ...]) -> DataError:
    """The error for an output that ``top1`` cannot read."""
    shown = ", ".join("n" if axis == 0 else str(size or "?") for axis, size in enumerate(shape))
    return DataError(
        f"'{reference.source}': output '{reference.output_names[0]}' has shape ({shown}), which is no classifier's: "
        "top1 expects (n, classes)",
        "name a metric that reads this output with --metric module:function",
    )


def _with_passes(loaded: LoadedWorkload, opened: Opened, reference: Reference, passes: PassOptions) -> LoadedWorkload:
    assert opened.workload is not None  # --passes is refused with --model
    try:
        count = classes(reference)
    except DataError as error:
        first = reference.output_names[0]
        raise DataError(
            f"--passes: pruning and distillation read class scores, expected output '{first}' of shape (n, classes), "
            f"got {reference.output_shapes[first]}",
            "leave --passes out",
        ) from error
    module = check_module(loaded.model, opened.label)
    brought = read_pass_inputs(
        opened.workload, opened.label, reference, teacher=module if passes.distil else None, classes=count
    )
    if passes.distil and not (passes.prune or passes.sparse or brought.students):
        raise nothing_to_distil(opened.label)
    return replace(loaded, training=brought.training, students=brought.students, augment=brought.augment)


def _calibration(workload: Workload, label: str) -> Inputs:
    where = f"{label}: calibration"
    calibration = own_code(where, lambda: workload.calibration)
    if not isinstance(calibration, Mapping):
        raise WorkloadError(
            f"{where} is a {type(calibration).__name__}, expected a mapping of arrays",
            "write {'input': x}, one array per network input",
        )
    return calibration


def _model(workload: Workload, label: str) -> torch.nn.Module | Path:
    model = own_code(f"{label}: model", lambda: workload.model)
    return Path(model) if isinstance(model, str) else model


def _reference(
    model: torch.nn.Module | Path,
    inputs: Inputs,
    name: str,
    asked_batch: int | None,
    skipped: Collection[str] = (),
) -> Reference:
    if isinstance(model, Path):
        return load_reference(model, skipped=skipped)
    return _exported(model, inputs, name, asked_batch)


def _exported(module: torch.nn.Module, inputs: Inputs, name: str, asked_batch: int | None) -> Reference:
    try:
        return export_reference(module, inputs, name=name)
    except ModelError:
        if asked_batch is None:
            raise
    return export_reference(module, inputs, name=name, batch=asked_batch)


def _evaluation(arrays: Inputs, reference: Reference, metric: Metric, source: str) -> Labelled:
    inputs = check_inputs(arrays, reference, source)
    samples = len(next(iter(inputs.values())))
    labels = check_labels(arrays, samples, source)
    if metric is top1:
        check_classes(labels, classes(reference), source)
    if samples < 2:
        raise DataError(
            f"'{source}': holds {samples} sample; part of the evaluation data is held back, so expected 2 or more"
        )
    return Labelled(inputs=inputs, labels=labels)
