"""The batch axis of each input and output of a network, from the shapes that its graph declares or a person says.

A dynamic batch is a named axis that inputs share. Of several names the one that sounds like a batch is taken, then the
one that more arrays have first, then the one that more arrays have at all; one that no input has first has to be called
batch or, where it only sounds like one, be an output's first. An axis without a name (an exporter's −1 or 0) counts as
one more name. A fixed batch is an input's first size, the one that most inputs have. An input without that axis has one
value that all samples share. Where no input has one, each run is one sample.

Not told: a batch that is called otherwise and is no input's first axis; ``measured_batching`` and ``--batch-axis`` are
for those.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import onnx

from bitfront.core import Batching, UsageError

Axis = int | str
Shapes = Mapping[str, tuple[Axis, ...]]

_UNNAMED = "?"  # no exporter's name
_USUAL = frozenset({"n", "b", "bs"})


def infer_batching(
    graph: onnx.GraphProto,
    told: Mapping[str, int | None] = MappingProxyType({}),
    *,
    inferred: onnx.GraphProto | None = None,
) -> Batching:
    """Axis of the samples in each input and output of a graph.

    Args:
        graph: As it was given.
        told: Input or output → its batch axis, None for none, as a person says; the others follow.
        inferred: The same graph with shapes of outputs that ``graph`` leaves open.

    Raises:
        UsageError: If ``told`` names what is no input or output, or an axis that it does not have.
    """
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: _axes(value) or () for value in graph.input if value.name not in constants}
    outputs = _output_axes(graph, inferred)
    _check_told(told, inputs, {value.name: outputs.get(value.name) for value in graph.output})
    sure = {name: axis for name, axis in told.items() if name in inputs}
    asked = {name: axes for name, axes in inputs.items() if sure.get(name, 0) is not None}
    named = [inputs[name][axis] for name, axis in sure.items() if axis is not None]
    batch = next((name for name in named if isinstance(name, str)), None) if named else _batch_name(asked, outputs)
    size = next((size for size in named if isinstance(size, int)), None)
    if not named:
        size = _batch_size(asked, outputs, batch)
    if size is not None:
        found = {name: _fixed_axis(axes, size) for name, axes in inputs.items()}
        answered = {name: _fixed_axis(axes, size) for name, axes in outputs.items()}
    else:
        inner = {axis for axes in inputs.values() for axis in axes[1:] if isinstance(axis, str)} - {_UNNAMED}
        found = {name: _dynamic_axis(axes, batch, inner) for name, axes in inputs.items()}
        answered = {name: _dynamic_axis(axes, batch, frozenset()) for name, axes in outputs.items()}
    found |= sure
    if all(axis is None for axis in found.values()):
        answered, size = dict.fromkeys(answered), 1
    answered |= {name: axis for name, axis in told.items() if name not in inputs}
    return Batching(inputs=found, outputs=answered, fixed=size, certain=frozenset(told) - set(inputs))


def _check_told(told: Mapping[str, int | None], inputs: Shapes, outputs: Mapping[str, tuple[Axis, ...] | None]) -> None:
    for name, axis in told.items():
        if name not in inputs and name not in outputs:
            raise UsageError(
                f"--batch-axis: '{name}' is no input or output; inputs: {', '.join(inputs)}; outputs: "
                f"{', '.join(outputs)}",
                "name one as the network does",
            )
        axes = inputs.get(name, outputs.get(name))
        if axis is not None and axes is not None and axis >= len(axes):
            raise UsageError(
                f"--batch-axis {name}={axis}: '{name}' has {len(axes)} axes, counted from 0",
                f"give {name}=none if its samples are no axis of it",
            )


def _output_axes(graph: onnx.GraphProto, inferred: onnx.GraphProto | None) -> dict[str, tuple[Axis, ...]]:
    """Sizes and names of the outputs' axes; a name that the graph left open is filled in where inference found one."""
    declared = {value.name: _axes(value) for value in graph.output}
    further = {value.name: _axes(value) for value in inferred.output} if inferred is not None else {}
    known = {axis for value in graph.input for axis in _axes(value) or () if isinstance(axis, str)} - {_UNNAMED}
    found = {}
    for name, axes in declared.items():
        more = further.get(name)
        if axes is None:
            axes = more
        elif more is not None and len(more) == len(axes):
            axes = tuple(b if a == _UNNAMED and b in known else a for a, b in zip(axes, more, strict=True))
        if axes is not None:
            found[name] = axes
    return found


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
