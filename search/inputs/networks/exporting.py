"""Exporting a workload's torch module, with its calibration inputs as example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bitfront.backends.registry import default_interpreter
from bitfront.core import Array, DataError, Inputs, ModelError
from bitfront.core.ragged import is_ragged
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
        brought: Input name → array (n, …), or samples one by one, in a list or as ``core.ragged`` has
            them; axes in which these differ are exported as dynamic.
        name: The workload's name.
        asked_batch: The batch it is exported with where a dynamic one is impossible; None for none.

    Raises:
        DataError: If samples of one input differ in their number of axes.
        ModelError: If the exporter fails, or inputs are not what ``forward`` takes.
    """
    brought = {name: list(value) if _is_uneven(value) else value for name, value in brought.items()}
    dynamic = _varying_axes(brought)
    largest, others = _example_samples(brought, dynamic)
    inputs = _in_parameters_type(module, largest)
    checked = None if others is None else _in_parameters_type(module, others)
    try:
        return export_reference(module, inputs, default_interpreter(), name=name, dynamic=dynamic, others=checked)
    except ModelError:
        if asked_batch is None:
            raise
    return export_reference(module, inputs, default_interpreter(), name=name, batch=asked_batch, dynamic=dynamic)


def _is_uneven(value: Array | list[Array]) -> bool:
    return not isinstance(value, list) and is_ragged(value)


def _varying_axes(brought: Mapping[str, Array | list[Array]]) -> dict[str, tuple[int, ...]]:
    """Input → the axes, the batch's being 0, in which samples brought one by one differ."""
    found = {}
    for name, value in brought.items():
        shapes = [sample.shape for sample in value] if isinstance(value, list) else []
        ranks = {len(shape) for shape in shapes}
        if len(ranks) > 1:
            listed = " and ".join(map(str, sorted(ranks)))
            raise DataError(
                f"calibration: samples of '{name}' have {listed} axes, expected one number of them",
                "give every sample the axes that forward reads, without the batch's",
            )
        axes = tuple(axis for axis, sizes in enumerate(zip(*shapes, strict=True), 1) if len(set(sizes)) > 1)
        if axes:
            found[name] = axes
    return found


def _example_samples(
    brought: Mapping[str, Array | list[Array]], dynamic: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """All samples shaped like the largest one, (n, …) each, and one of the smallest; None where all have one shape.

    The exporter takes an axis of size 1 for one that always is: among samples as large, sizes are compared first.
    """
    lists = {name: value for name, value in brought.items() if isinstance(value, list)}
    if not dynamic:
        return {name: np.stack(value) if isinstance(value, list) else value for name, value in brought.items()}, None
    count = min(len(value) for value in brought.values() if isinstance(value, list) or value.ndim)

    def size(row: int) -> tuple[int, int]:
        sizes = [lists[name][row].shape[axis - 1] for name, axes in dynamic.items() for axis in axes]
        return min(min(sizes), 2), sum(sizes)

    order = sorted(range(count), key=size)

    def like(row: int) -> dict[str, Array]:
        shapes = {name: value[row].shape for name, value in lists.items()}
        rows = [at for at in range(count) if all(lists[name][at].shape == shape for name, shape in shapes.items())]
        return {name: _rows(value, rows) for name, value in brought.items()}

    return like(order[-1]), like(order[0])


def _rows(value: Array | list[Array], rows: list[int]) -> Array:
    if isinstance(value, list):
        return np.stack([value[row] for row in rows])
    return value[rows] if value.ndim else value


def _in_parameters_type(module: torch.nn.Module, inputs: Inputs) -> Inputs:
    """Floating inputs as float32 where that is what the module computes in: it refuses any other floating type."""
    kinds = {str(parameter.dtype) for parameter in module.parameters() if parameter.is_floating_point()}
    if kinds != {"torch.float32"}:
        return inputs
    return {
        name: cast(array, "float32", f"calibration: array '{name}'") if array.dtype.kind == "f" else array
        for name, array in inputs.items()
    }
