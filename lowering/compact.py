"""Writing computed constants as what they are computed from, where that takes fewer bytes in the file.

A weight given in FP16 behind a Cast, a grid that Tile makes of a row, a table that is read transposed as well: in a
normalised network each is an initialiser (``lowering.folding``). A written file keeps the nodes instead wherever they
and the constants they read, those that the file holds anyway left out, are smaller. Runtimes compute them on load.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from bitfront.lowering.folding import Origins
from bitfront.lowering.graph import free_name, tensor_names
from bitfront.lowering.weight_files import stored_bytes, tensor_array

# Types that runtimes transpose, and the smallest matrix that is worth a node.
_TRANSPOSED = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8)
_WORTH_SHARING = 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """Nodes and constants that one constant of a network is computed from.

    Attributes:
        nodes: In order; the last one writes the constant.
        constants: Initialisers they read.
    """

    nodes: tuple[onnx.NodeProto, ...]
    constants: tuple[TensorProto, ...]

    def __iter__(self) -> Iterator[onnx.NodeProto | TensorProto]:
        return iter((*self.nodes, *self.constants))


def sources_of(proto: onnx.ModelProto, origins: Origins) -> dict[str, Source]:
    """Initialiser → what it is computed from, for those of a network that still have the value that was folded."""
    found = {}
    for tensor in proto.graph.initializer:
        if tensor.name in origins.nodes:
            nodes: dict[str, onnx.NodeProto] = {}
            constants: dict[str, TensorProto] = {}
            _trace(tensor.name, origins, nodes, constants)
            found[tensor.name] = Source(nodes=tuple(nodes.values()), constants=tuple(constants.values()))
    return found


def _trace(name: str, origins: Origins, nodes: dict[str, onnx.NodeProto], constants: dict[str, TensorProto]) -> None:
    """Add the nodes and constants behind ``name``; without recursion, since chains may be long."""
    stack: list[tuple[str, bool]] = [(name, False)]
    while stack:
        current, ready = stack.pop()
        node = origins.nodes.get(current)
        if node is None:
            constants[current] = origins.constants[current]
        elif ready:
            nodes[node.output[0]] = node
        elif node.output[0] not in nodes:
            stack.append((current, True))
            stack += [(source, False) for source in node.input if source]


def write_compactly(model: onnx.ModelProto, sources: Mapping[str, Source]) -> onnx.ModelProto:
    """The model with constants written as nodes where that is smaller; the same object where none is."""
    return _with_shared_tables(_with_sources(model, sources), sources)


def _with_sources(model: onnx.ModelProto, sources: Mapping[str, Source]) -> onnx.ModelProto:
    present = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in sources}
    if not present:
        return model
    held = _Held(model)
    chosen: set[str] = set()
    for group in _sharing(present, sources):
        for names in (group, *([name] for name in sorted(group, key=lambda name: -stored_bytes(present[name])))):
            rest = [name for name in names if name not in chosen]
            if rest and held.cost(rest, sources) < sum(stored_bytes(present[name]) for name in rest):
                held.take(rest, sources)
                chosen.update(rest)
    return held.write(chosen, sources) if chosen else model


class _Held:
    """Constants and nodes that a file holds, while the former are taken for the latter."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._taken = tensor_names(model.graph)
        # Tensors in the network's terms that were added → their names in this file.
        self._added: dict[str, str] = {}

    def _holds(self, tensor: TensorProto) -> bool:
        own = self._constants.get(tensor.name)
        if tensor.name in self._added or own is tensor:
            return True
        return own is not None and _content(own) == _content(tensor)

    def cost(self, names: Collection[str], sources: Mapping[str, Source]) -> int:
        """Bytes that nodes and constants of these would add."""
        nodes = {node.output[0]: node for name in names for node in sources[name].nodes}
        constants = {tensor.name: tensor for name in names for tensor in sources[name].constants}
        added: list[onnx.NodeProto | TensorProto] = [node for key, node in nodes.items() if key not in self._added]
        added += [tensor for tensor in constants.values() if not self._holds(tensor)]
        return sum(_bytes_of(part) + 2 for part in added)

    def take(self, names: Collection[str], sources: Mapping[str, Source]) -> None:
        """Hold the nodes and constants that these are computed from, and no longer these."""
        for name in names:
            del self._constants[name]
            self._added[name] = name
        for name in names:
            for tensor in sources[name].constants:
                if not self._holds(tensor):
                    copy = TensorProto()
                    copy.CopyFrom(tensor)
                    copy.name = self._added[tensor.name] = free_name(tensor.name, self._taken)
                    self._constants[copy.name] = copy
            for node in sources[name].nodes:
                for output in filter(None, node.output):
                    if output not in self._added:
                        self._added[output] = free_name(output, self._taken)

    def write(self, chosen: Collection[str], sources: Mapping[str, Source]) -> onnx.ModelProto:
        """The file with the nodes of ``chosen`` before its own."""
        written = onnx.ModelProto()
        written.CopyFrom(self._model)
        del written.graph.node[:], written.graph.initializer[:]
        for node in {node.output[0]: node for name in chosen for node in sources[name].nodes}.values():
            copy = written.graph.node.add()
            copy.CopyFrom(node)
            for names in (copy.input, copy.output):
                for place, name in enumerate(names):
                    names[place] = self._added.get(name, name)
        written.graph.node.extend(self._model.graph.node)
        written.graph.initializer.extend(self._constants.values())
        return written


def _with_shared_tables(model: onnx.ModelProto, sources: Mapping[str, Source]) -> onnx.ModelProto:
    """The model with matrices that are each other's transpose stored once.

    An embedding and the output layer that reads it transposed stay equal when both are rounded alike.
    """
    if not any(node.op_type == "Transpose" for source in sources.values() for node in source.nodes):
        return model
    kept: dict[tuple[int, ...], list[TensorProto]] = {}
    tied: list[tuple[TensorProto, str]] = []
    for tensor in model.graph.initializer:
        if len(tensor.dims) != 2 or tensor.data_type not in _TRANSPOSED or stored_bytes(tensor) < _WORTH_SHARING:
            continue
        rows, columns = tensor.dims
        value = tensor_array(tensor)
        others = kept.get((tensor.data_type, columns, rows), [])
        other = next((t for t in others if np.array_equal(tensor_array(t).T, value)), None)
        if other is not None:
            tied.append((tensor, other.name))
        else:
            kept.setdefault((tensor.data_type, rows, columns), []).append(tensor)
    if not tied:
        return model
    written = onnx.ModelProto()
    written.CopyFrom(model)
    del written.graph.node[:], written.graph.initializer[:]
    gone = {tensor.name for tensor, _ in tied}
    written.graph.node.extend(helper.make_node("Transpose", [other], [t.name], perm=[1, 0]) for t, other in tied)
    written.graph.node.extend(model.graph.node)
    written.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name not in gone)
    return written


def _bytes_of(part: onnx.NodeProto | TensorProto) -> int:
    return stored_bytes(part) if isinstance(part, TensorProto) else int(part.ByteSize())


def _content(tensor: TensorProto) -> tuple[int, tuple[int, ...], bytes]:
    return tensor.data_type, tuple(tensor.dims), tensor_array(tensor).tobytes()


def _sharing(present: Collection[str], sources: Mapping[str, Source]) -> list[list[str]]:
    """Constants grouped by what they are computed from: two that share a source may only together be smaller."""
    groups: list[tuple[set[str], list[str]]] = []
    for name in present:
        reads = {tensor.name for tensor in sources[name].constants}
        joined = [group for group in groups if group[0] & reads]
        groups = [group for group in groups if not group[0] & reads]
        groups.append((reads.union(*(group[0] for group in joined)), [*(n for g in joined for n in g[1]), name]))
    return [names for _, names in groups]
