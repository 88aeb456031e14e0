"""The batch axis of each input and output of a network, from the shapes that its graph declares.

A dynamic batch is a named axis that inputs share. Of several names the one that sounds like a batch is taken, then the
one that more arrays have first, then the one that more arrays have at all; one that no input has first has to be called
batch or, where it only sounds like one, be an output's first. An axis without a name (an exporter's −1 or 0) counts as
one more name. A fixed batch is an input's first size, the one that most inputs have. An input without that axis has one
value that all samples share.

Not told: a batch that is called otherwise and is no input's first axis.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from bitfront.core import Batching

Axis = int | str
Shapes = Mapping[str, tuple[Axis, ...]]

_UNNAMED = "?"  # no exporter's name
_USUAL = frozenset({"n", "b", "bs"})


def infer_batching(graph: onnx.GraphProto) -> Batching:
    """Axis of the samples in each input and output of a graph."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: _axes(value) or () for value in graph.input if value.name not in constants}
    outputs = {value.name: axes for value in graph.output if (axes := _axes(value)) is not None}
    batch = _batch_name(inputs, outputs)
    size = _batch_size(inputs, outputs, batch)
    if size is not None:
        return Batching(
            inputs={name: _fixed_axis(axes, size) for name, axes in inputs.items()},
            outputs={name: _fixed_axis(axes, size) for name, axes in outputs.items()},
            fixed=size,
        )
    inner = {axis for axes in inputs.values() for axis in axes[1:] if isinstance(axis, str)} - {_UNNAMED}
    return Batching(
        inputs={name: _dynamic_axis(axes, batch, inner) for name, axes in inputs.items()},
        outputs={name: _dynamic_axis(axes, batch, frozenset()) for name, axes in outputs.items()},
    )


def _axes(value: onnx.ValueInfoProto) -> tuple[Axis, ...] | None:
    """Sizes, or names of dynamic axes; None for an unknown rank."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(axis.dim_value if axis.dim_value > 0 else axis.dim_param or _UNNAMED for axis in kind.shape.dim)


def _batch_name(inputs: Shapes, outputs: Shapes) -> str | None:
    """Name of the dynamic batch axis; None where no input has one."""
    arrays = [*inputs.values(), *outputs.values()]

    def sounds(name: str) -> bool:
        return "batch" in name.lower() or name.lower() in _USUAL

    def possible(name: str) -> bool:
        leads = sounds(name) and any(axes[:1] == (name,) for axes in outputs.values())
        return any(
            name == axes[0]
            or (name in axes and ("batch" in name.lower() or (sounds(name) and axes[0] in names)))
            or (name in axes and leads and axes[0] not in answered)
            for axes in inputs.values()
            if axes
        )

    def rank(name: str) -> tuple[bool, int, int]:
        return sounds(name), sum(axes[:1] == (name,) for axes in arrays), sum(name in axes for axes in arrays)

    answered = {axes[0] for axes in outputs.values() if axes}
    names = list(dict.fromkeys(axis for axes in inputs.values() for axis in axes if isinstance(axis, str)))
    return max((name for name in names if possible(name)), key=rank, default=None)


def _batch_size(inputs: Shapes, outputs: Shapes, batch: str | None) -> int | None:
    """The fixed batch; None where it is dynamic. An input may fix what another leaves open, if the outputs do too."""
    firsts = [axes[0] for axes in inputs.values() if axes and isinstance(axes[0], int)]
    answered = [axes[0] for axes in outputs.values() if axes and isinstance(axes[0], int)]
    if batch is not None:
        left_open = any(batch in axes for axes in outputs.values())
        firsts = [size for size in firsts if size in answered and size > 1 and not left_open]

    def rank(size: int) -> tuple[int, int, bool]:
        return sum(size in axes for axes in inputs.values()), firsts.count(size), size in answered

    return max(dict.fromkeys(firsts), key=rank, default=None)


def _fixed_axis(axes: tuple[Axis, ...], size: int) -> int | None:
    if axes and (axes[0] == size or isinstance(axes[0], str)):
        return 0
    return axes.index(size) if size in axes else None


def _dynamic_axis(axes: tuple[Axis, ...], batch: str | None, inner: frozenset[str] | set[str]) -> int | None:
    """The axis called ``batch``, else a dynamic first one, unless other inputs have that name further inside."""
    if batch in axes:
        return axes.index(batch)
    return 0 if axes and isinstance(axes[0], str) and axes[0] not in inner else None
