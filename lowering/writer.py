"""Writing a graph node by node: names stay unique, equal constants are stored once, order is the caller's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bitfront.core import digest
from bitfront.lowering.graph import captured_names, free_name
from bitfront.lowering.weight_files import tensor_array


class GraphWriter:
    """Collects nodes and initialisers of one new graph.

    Args:
        reference: The model whose inputs, outputs and opsets the new one has; nothing of it is copied yet.
        reserved: Tensor names that must not be given to anything new.
    """

    def __init__(self, reference: onnx.ModelProto, reserved: Sequence[str]) -> None:
        self._reference = reference
        self._nodes: list[onnx.NodeProto] = []
        self._named: dict[str, onnx.NodeProto] = {}
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._by_content: dict[str, str] = {}
        self._taken = set(reserved)
        self._domains = {entry.domain: entry.version for entry in reference.opset_import}

    def fresh(self, name: str) -> str:
        """``name``, or the first of name_2, name_3 … that is free; taken from now on."""
        return free_name(name, self._taken)

    def keep(self, tensor: onnx.TensorProto) -> None:
        """Take over an initialiser of the reference under its own name."""
        if tensor.name not in self._initializers:
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            copy.ClearField("doc_string")
            self._initializers[tensor.name] = copy

    def constant(self, array: NDArray[Any], name: str) -> str:
        """Name of an initialiser holding ``array``; an equal one written before is used again."""
        return self._store(numpy_helper.from_array(np.asarray(array, order="C"), ""), name)

    def value(self, name: str) -> NDArray[Any]:
        """The value of an initialiser written or kept before."""
        return tensor_array(self._initializers[name])

    def int4_constant(self, integers: NDArray[np.int8], name: str) -> str:
        """An INT4 initialiser of ``integers`` within [−8, 7], two to a byte."""
        flat = integers.reshape(-1)
        assert flat.min(initial=0) >= -8
        assert flat.max(initial=0) <= 7
        even = np.concatenate([flat, np.zeros(flat.size % 2, np.int8)]) & 0xF
        packed = (even[0::2] | (even[1::2] << 4)).astype(np.uint8)
        tensor = onnx.TensorProto(data_type=onnx.TensorProto.INT4, dims=integers.shape, raw_data=packed.tobytes())
        return self._store(tensor, name)

    def _store(self, tensor: onnx.TensorProto, name: str) -> str:
        key = digest(tensor.SerializeToString(deterministic=True))
        if key not in self._by_content:
            tensor.name = self.fresh(name)
            self._initializers[tensor.name] = tensor
            self._by_content[key] = tensor.name
        return self._by_content[key]

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        domain: str = "",
        name: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a node."""
        made = helper.make_node(op, list(inputs), list(outputs), domain=domain)
        for key, value in sorted((attributes or {}).items()):
            made.attribute.append(helper.make_attribute(key, value))
        self._append(made)
        if name:
            self.name_last(name)

    def copy(self, node: onnx.NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Append a reference node with other inputs and outputs, under its own name unless that is taken."""
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.ClearField("doc_string")
        del made.input[:], made.output[:]
        made.input.extend(inputs)
        made.output.extend(outputs)
        if made.name in self._named:
            made.ClearField("name")
        self._append(made)

    def name_last(self, name: str) -> None:
        """Name the node appended last; another of this name loses it."""
        if name in self._named:
            self._named[name].ClearField("name")
        self._nodes[-1].name = name
        self._named[name] = self._nodes[-1]

    def _append(self, node: onnx.NodeProto) -> None:
        if node.name:
            self._named[node.name] = node
        if node.domain == "com.microsoft":
            self._domains[node.domain] = 1
        self._nodes.append(node)

    def model(self) -> onnx.ModelProto:
        """The model written; initialisers nobody reads are left out."""
        read = {name for node in self._nodes for name in _reads(node)} | {
            value.name for value in self._reference.graph.output
        }
        graph = onnx.GraphProto(name=self._reference.graph.name or "network")
        graph.node.extend(self._nodes)
        graph.input.extend(self._reference.graph.input)
        graph.output.extend(self._reference.graph.output)
        graph.initializer.extend(tensor for name, tensor in self._initializers.items() if name in read)
        model = onnx.ModelProto(ir_version=self._reference.ir_version, graph=graph)
        for domain, version in self._domains.items():
            model.opset_import.append(helper.make_opsetid(domain, version))
        return model


def _reads(node: onnx.NodeProto) -> list[str]:
    return [*node.input, *captured_names(node)]
