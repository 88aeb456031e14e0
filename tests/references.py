"""Reference models for tests, with the interpreter that a search brings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from bitfront.backends.registry import default_interpreter
from bitfront.core import Inputs
from bitfront.lowering import export, load, reference
from bitfront.lowering.reference import ReferenceModel

if TYPE_CHECKING:
    import torch

INTERPRETER = default_interpreter()


def make_reference(
    model: onnx.ModelProto,
    source: str,
    *,
    skipped: Collection[str] = (),
    fixed_inputs: Mapping[str, float] | None = None,
) -> ReferenceModel:
    """See ``lowering.reference``."""
    return reference.make_reference(model, source, INTERPRETER, skipped=skipped, fixed_inputs=fixed_inputs)


def load_reference(path: Path, *, skipped: Collection[str] = ()) -> ReferenceModel:
    """See ``lowering.load``."""
    return load.load_reference(path, INTERPRETER, skipped=skipped)


def export_reference(module: torch.nn.Module, inputs: Inputs, *, name: str, batch: int | None = None) -> ReferenceModel:
    """See ``lowering.export``."""
    return export.export_reference(module, inputs, INTERPRETER, name=name, batch=batch)
