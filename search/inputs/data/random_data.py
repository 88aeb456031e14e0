"""Random calibration data, only where it is asked for: ranges found on it are no better than a guess.

Floating inputs are drawn from a normal distribution of mean 0 and deviation 1. Integers that index an embedding table
are drawn from its rows, other integers and booleans are 1 and true: a mask that hides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bitfront.core import Array, DataError, UsageError
from bitfront.search.inputs.arrays import shown_shape
from bitfront.search.inputs.data.base import CALIB, DataRequest, LoadedData

if TYPE_CHECKING:
    import onnx

RANDOM = "random"
SAMPLES = 128
RANDOM_WARNING = (
    "--calib random: activation ranges come from random numbers, not from data; accuracy in use may be far from what "
    "ranges of real inputs would give"
)
_OPTIONS = {
    "samples": f"samples drawn (default: {SAMPLES})",
    "seed": "seed of the numbers (default: 0)",
    "length": "size of every dynamic axis but the batch",
    "high": "NAME:N, draw whole numbers from 0 to N − 1 for an input",
}


@dataclass(frozen=True, slots=True)
class RandomData:
    """Loader of random inputs."""

    form: str = RANDOM
    described: str = "the word random (calibration alone)"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)
    sequences: bool = False

    def recognises(self, spec: str) -> bool:
        """Whether it is the word; ``./random`` is a file of that name."""
        return spec == RANDOM

    def check(self, spec: str, option: str) -> None:
        """Refuse random evaluation data.

        Raises:
            UsageError: Always with ``--eval``.
        """
        if option != CALIB:
            raise UsageError(
                f"{option}: '{spec}': random inputs have no labels, so nothing can be scored on them",
                "give real inputs; only --calib may be random. A file of that name is ./random",
            )

    def load(self, request: DataRequest) -> LoadedData:
        """Draw the inputs.

        Raises:
            DataError: If an input has dynamic axes and no length was given.
            UsageError: If ``high`` names no input of whole numbers.
        """
        reference, options = request.reference, request.options
        samples, seed = options.positive("samples") or SAMPLES, options.whole("seed") or 0
        high = {name: _high(text) for name, text in options.pairs("high").items()}
        for name in high:
            if name not in reference.input_shapes or np.dtype(reference.input_types[name]).kind not in "iu":
                raise UsageError(
                    f"--data-options high: '{name}' is no input of whole numbers; inputs: "
                    + ", ".join(f"'{known}' {kind}" for known, kind in reference.input_types.items()),
                    "name one as the network does",
                )
        # A fixed batch is filled a whole number of times.
        batch = reference.fixed_batch or 1
        samples = -(-samples // batch) * batch
        generator = np.random.default_rng(seed)
        arrays = {
            name: self._draw(name, samples, request, generator, high.get(name)) for name in reference.input_shapes
        }
        return request.loaded(arrays, None, self.form, f"drawn with seed {seed}: no real data")

    def _draw(
        self, name: str, samples: int, request: DataRequest, generator: np.random.Generator, high: int | None
    ) -> Array:
        shape, axis = request.reference.input_shapes[name], request.reference.batching.input_axis(name)
        length = request.options.positive("length")
        if length is None and any(size is None for place, size in enumerate(shape) if place != axis):
            raise DataError(
                f"{request.where}: input '{name}' has dynamic axes besides the batch: {shown_shape(shape, axis)}",
                f"say their size with --data-options length=N, or which counts samples with --batch-axis {name}=AXIS",
            )
        sizes = [samples if place == axis else size or length or 1 for place, size in enumerate(shape)]
        if axis is None and request.reference.batching.single:
            sizes = [samples, *sizes]  # a value for each sample: there may be no other way to tell them apart
        dtype = np.dtype(request.reference.input_types[name])
        if dtype.kind == "f":
            return generator.standard_normal(sizes).astype(dtype)
        rows = high or table_rows(request.reference.proto.graph, name)
        if dtype.kind in "iu" and rows is not None:
            return generator.integers(0, rows, sizes).astype(dtype)
        return np.ones(sizes, dtype)


def table_rows(graph: onnx.GraphProto, name: str) -> int | None:
    """Rows of the smallest constant table that an input indexes with Gather, through casts; None for no table."""
    tables = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    same, rows = {name}, []
    for node in graph.node:
        if node.op_type in ("Cast", "Identity", "Reshape") and node.input[0] in same:
            same.add(node.output[0])
        elif node.op_type == "Gather" and node.input[1] in same and node.input[0] in tables:
            rows.append(tables[node.input[0]])
    return min(rows, default=None)


def _high(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise UsageError(
            f"--data-options high: expected a positive whole number, got '{text[:80]}'", "as in high=ids:1000"
        )
    return int(text)
