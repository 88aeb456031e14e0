"""Networks in files: ONNX, and folders of Hugging Face models."""

from __future__ import annotations

from pathlib import Path

from bitfront.backends.registry import default_interpreter
from bitfront.core import PrecisionConfig
from bitfront.lowering.load import load_reference
from bitfront.lowering.normalise import steps_to_skip
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.inputs.networks.hugging_face import read_folder
from bitfront.search.inputs.source import Source


def read_source(source: Source, asked_batch: int | None, config: PrecisionConfig | None) -> ReferenceModel:
    """The network of an ONNX file, or of the folder of a Hugging Face model.

    Args:
        source: Names one of them.
        asked_batch: The batch that a folder's model is exported with where a dynamic one is impossible; None for none.
        config: As of ``read_onnx``.

    Raises:
        ModelError: If it cannot be read or exported.
        UsageError: If nothing says what a folder's model reads.
    """
    if source.folder is not None:
        return read_folder(source.folder, str(source.task), source.calibration, asked_batch, config)
    assert source.model is not None
    return read_onnx(source.model, config)


def read_onnx(model: Path, config: PrecisionConfig | None) -> ReferenceModel:
    """The network of an ONNX file.

    Args:
        model: The file.
        config: Whose network it is: it says which steps of normalising made it; None finds those that keep what the
            network answers.

    Raises:
        ModelError: If it cannot be read.
    """
    if config is None:
        return load_reference(model, default_interpreter())
    skipped = steps_to_skip(config.skipped_steps, config.applied_steps)
    return load_reference(model, default_interpreter(), skipped=skipped, fixed_inputs=config.fixed_inputs)
