"""Loading the files or Python objects named on the command line into a workload that fits its network.

Files and Python objects both end as a ``LoadedWorkload``: every array read once, checked against the normalised network
and cast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bitfront.backends.sequences import Recurrence
from bitfront.core import DataError, Inputs, Labelled, Metric, PrecisionConfig, UsageError, Workload
from bitfront.core.metric_spec import fit_metric
from bitfront.lowering.equivalence import equivalent_to_given
from bitfront.lowering.fixed_inputs import check_fixed_inputs
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.inputs.arrays import check_classes, shown_shape
from bitfront.search.inputs.evaluation import fitted, fitted_outputs, usual_metric
from bitfront.search.inputs.layout.network import decided_network, measured_layout, single_steps
from bitfront.search.inputs.network_sources import FileSource, NetworkSource, ObjectSource
from bitfront.search.inputs.passes import check_module, check_trainable, read_pass_inputs
from bitfront.search.inputs.source import Source
from bitfront.search.inputs.workloads import (
    DEFAULT_WORKLOAD,
    load_metric,
    load_workload,
    read_batch_size,
    read_metric,
    read_name,
)
from bitfront.search.passes.options import PassOptions

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
        data_sources: ``calibration`` and ``evaluation`` → form and text of where they came from; empty for a workload
            that is a Python object.
        batch_axes: (input or output, batch axis) where a person said it.
        recurrence: How the network is run over ``evaluation``, whose samples are sequences; None where they are not.
            Samples of ``calibration`` are single steps either way.
        notices: What a person should know of data and metric.
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
    data_sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    batch_axes: tuple[tuple[str, int | None], ...] = ()
    recurrence: Recurrence | None = None
    notices: tuple[str, ...] = ()


def open_source(source: Source) -> Opened:
    """Find the model file or the workload object.

    Raises:
        WorkloadError: If the workload or the metric cannot be found.
        UsageError: If a model comes without its data.
    """
    if source.model is None:
        label = source.workload or DEFAULT_WORKLOAD
        workload = load_workload(label, source.data)
        label = f"workload '{label}'"
        return Opened(
            source=source,
            label=label,
            name=read_name(workload, label),
            metric=read_metric(workload, label),
            workload=workload,
        )
    if source.calibration is None:
        raise UsageError(
            "--calib is missing: a search needs inputs without labels to find activation ranges with",
            "give --calib calib.npz, with arrays named like the network's inputs, or data of another form "
            "(docs/data.md)",
        )
    source.check_files()
    metric = usual_metric(source, load_metric(source.metric) if source.metric is not None else None)
    return Opened(source=source, label=str(source.model), name=source.model.stem, metric=metric, workload=None)


def load(
    opened: Opened, asked_batch: int | None, passes: PassOptions | None = None
) -> tuple[LoadedWorkload, ReferenceModel]:
    """Load and check a network and its data.

    Returns:
        The workload with every array in memory, and the normalised network.

    Args:
        opened: Where they are.
        asked_batch: The batch a PyTorch module is exported with where a dynamic one is impossible.
        passes: Passes of the search, for which the workload's training inputs are read too; None without passes.

    Raises:
        EngineError: A model, data or workload error.
    """
    source = opened.source
    network: NetworkSource
    if opened.workload is None:
        network = FileSource.opened(source)
    else:
        network = ObjectSource.opened(
            source, opened.workload, opened.label, opened.name, asked_batch=asked_batch, passes=passes is not None
        )
    brought = network.calibration()
    assert brought is not None  # ``open_source`` refuses a model without
    reference = measured_layout(network.reference, brought.inputs, network.state)
    evaluation = network.evaluation(opened.metric, brought, reference)
    reference = decided_network(reference, network.state, evaluation.calibration, evaluation.data.inputs)
    calibration, recurrence = single_steps(reference, network.state, evaluation.calibration)
    evaluation = fitted(evaluation, reference, stepwise=recurrence is not None)
    told = {"calibration": brought.to_json(), "evaluation": evaluation.source}
    loaded = LoadedWorkload(
        name=opened.name,
        model=network.model,
        calibration=calibration,
        evaluation=_scorable(evaluation.data, reference, evaluation.metric, network.scored_on),
        metric=evaluation.metric,
        batch_size=None if opened.workload is None else read_batch_size(opened.workload, opened.label),
        data_sources=told if opened.workload is None else {},
        batch_axes=source.batch_axes,
        recurrence=recurrence,
        notices=evaluation.notices,
    )
    return (loaded if passes is None else _with_passes(loaded, opened, reference, passes)), reference


def load_network(source: Source, config: PrecisionConfig | None = None) -> tuple[ReferenceModel, Inputs | None]:
    """The network, and the calibration inputs where the source has them; no evaluation data needed.

    Args:
        source: Where they are.
        config: Whose network it is: it says which steps of normalising made it; None finds those that keep what the
            network answers.

    Raises:
        EngineError: A model, data or workload error.
        ConfigError: If the data needs another branch than the network of the config has.
    """
    return _calibrated(_network_of(source, config), config)


def load_to_score(source: Source) -> tuple[ReferenceModel, Inputs | None, Metric | None]:
    """The network, and the calibration inputs and the metric where the source has them; no evaluation data needed.

    Raises:
        EngineError: A model, data or workload error.
    """
    network = _network_of(source, None)
    reference, inputs = _calibrated(network, None)
    if not isinstance(network, ObjectSource):
        return reference, inputs, None
    metric = read_metric(network.workload, network.label)
    outputs = fitted_outputs(reference, stepwise=bool(network.state))
    return reference, inputs, fit_metric(metric, outputs, labelled=True)


def _network_of(source: Source, config: PrecisionConfig | None) -> FileSource | ObjectSource:
    if source.model is not None:
        source.check_files()
        return FileSource.opened(source, config)
    name = source.workload or DEFAULT_WORKLOAD
    workload, label = load_workload(name, source.data), f"workload '{name}'"
    return ObjectSource.opened(source, workload, label, read_name(workload, label), config=config)


def _calibrated(network: NetworkSource, config: PrecisionConfig | None) -> tuple[ReferenceModel, Inputs | None]:
    brought = network.calibration()
    if brought is None:
        return network.reference if config is not None else equivalent_to_given(network.reference, None), None
    reference = measured_layout(network.reference, brought.inputs, network.state)
    if config is None:
        reference = decided_network(reference, network.state, brought.inputs)
    else:
        check_fixed_inputs(reference, brought.inputs)
    return reference, single_steps(reference, network.state, brought.inputs)[0]


def batch_size(asked: int | None, workload: LoadedWorkload, reference: ReferenceModel) -> int:
    """Samples per timed inference: the option, else the network's fixed batch, else the workload's wish, else 1.

    Raises:
        UsageError: If the option and a fixed batch disagree.
        DataError: If there is not enough evaluation data for one batch.
    """
    own = reference.fixed_batch
    if own is not None and asked is not None and asked != own:
        raise UsageError(
            f"--batch-size: got {asked}, but '{reference.source}' "
            + (f"has a fixed batch of {own}" if own > 1 else "takes one sample at a time"),
            "leave the option out, export the network with a dynamic batch, or say which axis counts the samples with "
            "--batch-axis",
        )
    size = own or asked or workload.batch_size or 1
    samples = min(len(workload.evaluation), *(len(array) for array in workload.calibration.values()))
    if size > samples:
        raise DataError(
            f"--batch-size: {size} is more than the {samples} samples there are to fill a batch",
            "give more samples or a smaller batch",
        )
    return size


def classes(reference: ReferenceModel, use: str) -> int | None:
    """Number of classes as the network's stored output shape says, None where it does not.

    Args:
        reference: The network.
        use: What reads the classes, for messages.

    Raises:
        DataError: If the first output can be no classifier's.
    """
    first = reference.output_names[0]
    sizes = reference.output_shapes[first]
    if sizes is None or (reference.batching.single and reference.batching.outputs.get(first, 0) is None):
        return None
    # (n, classes), or trailing axes of size 1 that a global pooling left behind.
    check_classifier(reference, sizes, use)
    return sizes[1]


def check_classifier(reference: ReferenceModel, shape: tuple[int | None, ...], use: str) -> None:
    """Check that the first output is a classifier's.

    Args:
        reference: The network.
        shape: The output's, as far as it is known.
        use: What reads the classes, a metric's name for example, for messages.

    Raises:
        DataError: If it cannot, as where there is one column only: its largest entry is always the first.
    """
    name = reference.output_names[0]
    axis = reference.batching.outputs.get(name, 0)
    first = f"'{reference.source}': output '{name}' has shape {shown_shape(shape, axis)}"
    hint = "name a metric that reads this output with --metric module:function (a workload: as its 'metric')"
    if axis is None and len(shape) < 2:
        raise DataError(f"{first}, which has no row for each sample: {use} cannot read it", hint)
    if len(shape) == 1 or (len(shape) >= 2 and all(size == 1 for size in shape[1:])):
        raise DataError(
            f"{first}, one value a sample: {use} cannot read it, since the largest of one column is always column 0",
            hint,
        )
    if len(shape) < 2 or any(size not in (1, None) for size in shape[2:]):
        raise DataError(f"{first}, which is no classifier's: {use} expects (n, classes)", hint)


def _with_passes(
    loaded: LoadedWorkload, opened: Opened, reference: ReferenceModel, passes: PassOptions
) -> LoadedWorkload:
    assert opened.workload is not None  # --passes is refused with --model
    shared = [name for name, axis in reference.batching.inputs.items() if axis != 0]
    if shared:
        raise DataError(
            f"--passes: input '{shared[0]}' does not have the samples as its first axis, and passes train on batches",
            "leave --passes out",
        )
    try:
        count = classes(reference, "distillation")
    except DataError as error:
        first = reference.output_names[0]
        raise DataError(
            f"--passes: pruning and distillation read class scores, expected output '{first}' of shape (n, classes), "
            f"got {reference.output_shapes[first]}",
            "leave --passes out",
        ) from error
    module = check_module(loaded.model, opened.label)
    brought = read_pass_inputs(
        opened.workload, opened.label, reference, teacher=module if passes.recovery else None, classes=count
    )
    check_trainable(passes, opened.label, students=bool(brought.students))
    return replace(loaded, training=brought.training, students=brought.students, augment=brought.augment)


def _scorable(evaluation: Labelled, reference: ReferenceModel, metric: Metric, source: str) -> Labelled:
    if metric.classification:
        check_classes(evaluation.labels, classes(reference, metric.name), source, use=metric.name)
    if len(evaluation) < 2:
        raise DataError(
            f"'{source}': holds {len(evaluation)} sample; part of the data is held out, so expected 2 or more",
            "bring more labelled samples; a few hundred tell configurations apart",
        )
    return evaluation
