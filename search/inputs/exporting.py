"""Exporting a workload's torch module, with its calibration inputs as example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bitfront.backends.registry import default_interpreter
from bitfront.core import Array, Inputs, ModelError
from bitfront.lowering.export import export_reference
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.inputs.arrays import cast

if TYPE_CHECKING:
    import torch


def exported(
    module: torch.nn.Module, brought: Mapping[str, Array | list[Array]], name: str, asked_batch: int | None
) -> ReferenceModel:
    """A torch module exported as a reference model.

    Args:
        module: The network.
        brought: Input name → array (n, …), or samples one by one, of which those of the first one's shape are used.
        name: The workload's name.
        asked_batch: The batch it is exported with where a dynamic one is impossible; None for none.

    Raises:
        ModelError: If the exporter fails.
    """
    inputs = _in_parameters_type(module, {name: _of_one_shape(value) for name, value in brought.items()})
    try:
        return export_reference(module, inputs, default_interpreter(), name=name)
    except ModelError:
        if asked_batch is None:
            raise
    return export_reference(module, inputs, default_interpreter(), name=name, batch=asked_batch)


def _of_one_shape(value: Array | list[Array]) -> Array:
    """An array of samples, (n, …): of those brought one by one, all that have the first one's shape."""
    return (
        np.stack([sample for sample in value if sample.shape == value[0].shape]) if isinstance(value, list) else value
    )


def _in_parameters_type(module: torch.nn.Module, inputs: Inputs) -> Inputs:
    """Floating inputs as float32 where that is what the module computes in: it refuses any other floating type."""
    kinds = {str(parameter.dtype) for parameter in module.parameters() if parameter.is_floating_point()}
    if kinds != {"torch.float32"}:
        return inputs
    return {
        name: cast(array, "float32", f"calibration: array '{name}'") if array.dtype.kind == "f" else array
        for name, array in inputs.items()
    }
