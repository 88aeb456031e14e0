"""A network with its data, as files or as a Python object: where each part is read, with nothing run yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bitfront.core import Array, Labelled, Metric, ModelError, PrecisionConfig, UsageError, Workload, WorkloadError
from bitfront.core.files import check_readable
from bitfront.core.ragged import joined
from bitfront.lowering.reference import ReferenceModel, with_batch_axes
from bitfront.search.inputs.arrays import check_labels
from bitfront.search.inputs.data.base import CALIB, LoadedData
from bitfront.search.inputs.data.registry import load_data
from bitfront.search.inputs.evaluation import Evaluation, read_evaluation_data
from bitfront.search.inputs.layout.network import declared_layout
from bitfront.search.inputs.layout.sequences import check_samples, shared_inputs
from bitfront.search.inputs.networks.exporting import exported
from bitfront.search.inputs.networks.reading import read_onnx, read_source
from bitfront.search.inputs.passes import check_module
from bitfront.search.inputs.source import Source
from bitfront.search.inputs.workloads import read_calibration, read_evaluation, read_model, read_state

if TYPE_CHECKING:
    import torch


class NetworkSource(Protocol):
    """A network whose data is read when asked for.

    Attributes:
        reference: The network, laid out as it declares or a person says.
        model: The torch module or the ONNX file.
        state: Output → the input that it feeds at the next step; empty where samples are no sequences.
        scored_on: Names the evaluation data in messages.
    """

    @property
    def reference(self) -> ReferenceModel: ...  # noqa: D102 - see the class

    @property
    def model(self) -> torch.nn.Module | Path: ...  # noqa: D102 - see the class

    @property
    def state(self) -> Mapping[str, str]: ...  # noqa: D102 - see the class

    @property
    def scored_on(self) -> str: ...  # noqa: D102 - see the class

    def calibration(self) -> LoadedData | None:
        """The calibration samples, or sequences where there are states; None where the source has none.

        Raises:
            EngineError: If they are damaged or do not fit.
        """
        ...

    def evaluation(self, metric: Metric, calibration: LoadedData, reference: ReferenceModel) -> Evaluation:
        """The evaluation data, and the metric that fits it.

        Args:
            metric: As named.
            calibration: The calibration data.
            reference: The network with the layout that runs show.

        Raises:
            EngineError: If it is damaged or does not fit.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A ``NetworkSource`` of an ONNX file, or the folder of a Hugging Face model, and files of data."""

    source: Source
    model: Path
    reference: ReferenceModel
    state: Mapping[str, str]

    @classmethod
    def opened(
        cls, source: Source, *, asked_batch: int | None = None, config: PrecisionConfig | None = None
    ) -> FileSource:
        """Read the network.

        Args:
            source: Where everything is.
            asked_batch: The batch a folder's model is exported with where a dynamic one is impossible.
            config: Whose network it is; None reads it as for a search.

        Raises:
            EngineError: If it is no network, or a folder's model cannot be exported.
        """
        assert source.beside is not None
        reference = declared_layout(read_source(source, asked_batch, config), source)
        if source.state:
            shared_inputs(reference, dict(source.state))  # refuses names that are none
        return cls(source=source, model=source.beside, reference=reference, state=dict(source.state))

    @property
    def scored_on(self) -> str:
        """Name of the evaluation data: the spec of ``--eval``, or that of ``--calib`` without it."""
        return self.source.evaluation or self.source.calibration or ""

    def calibration(self) -> LoadedData | None:
        """Data of ``--calib``; None without it."""
        source = self.source
        if source.calibration is None:
            return None
        return load_data(source.calibration, CALIB, source.data_options, self.model, self.reference, state=self.state)

    def evaluation(self, metric: Metric, calibration: LoadedData, reference: ReferenceModel) -> Evaluation:
        """Data of ``--eval``, or a part of the calibration data."""
        return read_evaluation_data(self.source, metric, calibration, reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSource:
    """A ``NetworkSource`` of a Python object."""

    workload: Workload
    label: str
    brought: Mapping[str, Array | list[Array]] = field(repr=False)
    model: torch.nn.Module | Path
    reference: ReferenceModel
    state: Mapping[str, str]

    @classmethod
    def opened(
        cls,
        source: Source,
        workload: Workload,
        label: str,
        name: str,
        *,
        asked_batch: int | None = None,
        config: PrecisionConfig | None = None,
        passes: bool = False,
    ) -> ObjectSource:
        """Read network and calibration inputs, and export a torch module.

        Args:
            source: The options beside the object.
            workload: The object.
            label: Names it in messages.
            name: The workload's.
            asked_batch: The batch a torch module is exported with where a dynamic one is impossible.
            config: Whose network it is; None reads it as for a search.
            passes: Whether passes of the search train it.

        Raises:
            EngineError: A model, data or workload error.
        """
        brought, model = read_calibration(workload, label), read_model(workload, label)
        state = dict(source.state) or read_state(workload, label)
        if passes:
            check_module(model, label)
            if state:
                raise UsageError(
                    f"--passes: passes train on single samples, and those of {label} are sequences with a state",
                    "leave --passes out",
                )
        if isinstance(model, Path):
            check_readable(model, ModelError, "an ONNX file")
            reference = read_onnx(model, config)
        else:
            examples = _first_of(brought, state, label) if state else brought
            reference = exported(model, examples, name, asked_batch)
        return cls(
            workload=workload,
            label=label,
            brought=brought,
            model=model,
            reference=with_batch_axes(reference, dict(source.batch_axes)),
            state=state,
        )

    @property
    def scored_on(self) -> str:
        """The evaluation data in words."""
        return f"{self.label}: evaluation"

    def calibration(self) -> LoadedData:
        """The calibration inputs that were read."""
        where = f"{self.label}: calibration"
        inputs = check_samples(self.brought, self.reference, self.state, where)
        return LoadedData(inputs=inputs, labels=None, form="workload", text=where)

    def evaluation(self, metric: Metric, calibration: LoadedData, reference: ReferenceModel) -> Evaluation:
        """Evaluation data of the object, with its metric."""
        named, labels = read_evaluation(self.workload, self.label)
        inputs = check_samples(named, reference, self.state, self.scored_on)
        found = check_labels(labels, len(next(iter(inputs.values()))), self.scored_on)
        data = Labelled(inputs=inputs, labels=found)
        return Evaluation(calibration=calibration.inputs, data=data, source={}, metric=metric)


def _first_of(
    brought: Mapping[str, Array | list[Array]], state: Mapping[str, str], label: str
) -> dict[str, Array | list[Array]]:
    """Inputs of a torch module at the first step of sequences."""
    found: dict[str, Array | list[Array]] = {}
    for output, name in state.items():
        if name not in brought:
            raise WorkloadError(
                f"{label}: calibration has no array '{name}', which the state '{output}' feeds",
                "a torch module is exported with it: give its first values, (samples, …)",
            )
    for name, value in brought.items():
        if name in state.values():
            found[name] = value
            continue
        steps = [sample[0] for sample in value if sample.ndim and len(sample)]
        if not steps:
            raise UsageError(
                f"{label}: calibration array '{name}' has no steps, and with a state each sample is a sequence",
                "give (samples, time, …)",
            )
        found[name] = joined([np.asarray(step) for step in steps])
    return found
