"""Networks as a person brings them: ONNX files, torch modules and folders of Hugging Face models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitfront.backends.registry import default_interpreter
from bitfront.core import Array, ModelError, PrecisionConfig
from bitfront.core.files import check_readable
from bitfront.lowering.load import load_reference
from bitfront.lowering.normalise import steps_to_skip
from bitfront.lowering.reference import ReferenceModel, with_batch_axes
from bitfront.search.inputs.exporting import exported
from bitfront.search.inputs.networks.hugging_face import read_folder
from bitfront.search.inputs.source import Source

if TYPE_CHECKING:
    import torch


def read_model_network(
    model: torch.nn.Module | Path,
    inputs: Mapping[str, Array | list[Array]],
    name: str,
    asked_batch: int | None,
    config: PrecisionConfig | None = None,
    batch_axes: Sequence[tuple[str, int | None]] = (),
) -> ReferenceModel:
    """The network of a workload's model: a module, exported, or an ONNX file.

    Args:
        model: As the workload has it.
        inputs: Its calibration inputs, the example that a module is exported with.
        name: The workload's.
        asked_batch: The batch that a module is exported with where a dynamic one is impossible; None for none.
        config: As of ``read_source``.
        batch_axes: (input or output, axis that counts its samples) as a person says it.

    Raises:
        ModelError: If it cannot be read or exported.
    """
    if not isinstance(model, Path):
        return with_batch_axes(exported(model, inputs, name, asked_batch), dict(batch_axes))
    check_readable(model, ModelError, "an ONNX file")
    return with_batch_axes(_read_network(model, config), dict(batch_axes))


def read_source(source: Source, asked_batch: int | None, config: PrecisionConfig | None = None) -> ReferenceModel:
    """The network of an ONNX file, or of the folder of a Hugging Face model.

    Args:
        source: Names one of them.
        asked_batch: As of ``read_model_network``.
        config: Whose network it is: it says which steps of normalising made it; None finds those that keep what the
            network answers.

    Raises:
        ModelError: If it cannot be read or exported.
        UsageError: If nothing says what a folder's model reads.
    """
    if source.folder is not None:
        return read_folder(source.folder, str(source.task), source.calibration, asked_batch, config)
    assert source.model is not None
    return _read_network(source.model, config)


def _read_network(model: Path, config: PrecisionConfig | None) -> ReferenceModel:
    if config is None:
        return load_reference(model, default_interpreter())
    skipped = steps_to_skip(config.skipped_steps, config.applied_steps)
    return load_reference(model, default_interpreter(), skipped=skipped, fixed_inputs=config.fixed_inputs)
