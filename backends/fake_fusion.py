"""Fusions of the fake backend's runtime: a small model of ONNX Runtime's Q/DQ handling, on operator types only.

Not handled: subgraphs (one operator each), zero points, and shapes; a layer is integer by its neighbours alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import onnx

# Operators with an integer form, and its name. Those that only move values keep theirs.
INTEGER_KERNELS: Mapping[str, str] = MappingProxyType(
    {
        "Conv": "QLinearConv",
        "Gemm": "QGemm",
        "MatMul": "QLinearMatMul",
        "Add": "QLinearAdd",
        "Mul": "QLinearMul",
        "Concat": "QLinearConcat",
        "Sigmoid": "QLinearSigmoid",
        "LeakyRelu": "QLinearLeakyRelu",
        "AveragePool": "QLinearAveragePool",
        "GlobalAveragePool": "QLinearGlobalAveragePool",
        "MaxPool": "MaxPool",
        "Reshape": "Reshape",
        "Flatten": "Flatten",
        "Transpose": "Transpose",
        "Slice": "Slice",
        "Squeeze": "Squeeze",
        "Unsqueeze": "Unsqueeze",
    }
)
_ABSORBED = ("Relu", "Clip")


def fused_operators(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Operator types left after folding and fusion, in execution order."""
    return _Fusion(graph).operators()


class _Fusion:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {initializer.name for initializer in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            folds = node.op_type != "DequantizeLinear" and all(name in self.constants for name in node.input if name)
            if folds:
                self.constants.update(node.output)
            else:
                self.nodes.append(node)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)

    def operators(self) -> tuple[str, ...]:
        kernels: dict[int, str] = {}  # id of a node → what it runs as; "" is gone
        for node in self.nodes:
            if node.op_type in INTEGER_KERNELS and self._reads_integers(node):
                self._fuse_integer(node, kernels)
            elif node.op_type == "MatMul" and self._has_blocks(node.input[1]):
                kernels[id(node)] = "MatMulNBits"
        for node in self.nodes:
            if node.op_type == "DequantizeLinear" and self._is_fused_into_all(node, kernels):
                kernels[id(node)] = ""
        types = (kernels.get(id(node), node.op_type) for node in self.nodes)
        return tuple(kernel for kernel in types if kernel)

    def _reads_integers(self, node: onnx.NodeProto) -> bool:
        computed = [name for name in node.input if name and name not in self.constants]
        return bool(computed) and all(
            name in self.producer and self.producer[name].op_type == "DequantizeLinear" for name in computed
        )

    def _fuse_integer(self, node: onnx.NodeProto, kernels: dict[int, str]) -> None:
        last, absorbed = node, []
        while len(after := self._after(last)) == 1 and after[0].op_type in _ABSORBED:
            last = after[0]
            absorbed.append(last)
        if not after or any(reader.op_type != "QuantizeLinear" for reader in after):
            return
        kernels[id(node)] = INTEGER_KERNELS[node.op_type]
        for gone in (*absorbed, *after):
            kernels[id(gone)] = ""

    def _after(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Readers of the first output; none if it also leaves the graph."""
        return [] if node.output[0] in self.outputs else self.consumers.get(node.output[0], [])

    def _has_blocks(self, name: str) -> bool:
        node = self.producer.get(name)
        return (
            node is not None
            and node.op_type == "DequantizeLinear"
            and any(attribute.name == "block_size" and attribute.i for attribute in node.attribute)
        )

    def _is_fused_into_all(self, node: onnx.NodeProto, kernels: Mapping[int, str]) -> bool:
        readers = self._after(node)
        return bool(readers) and all(kernels.get(id(reader)) for reader in readers)
