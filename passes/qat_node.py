"""An ONNX node as the operator compilers read it: attributes, constant operands, and how to refuse it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
from torch import Tensor

from bitfront.core import LoweringError
from bitfront.lowering.graph import attribute

# Operands in the node's order, None for one that is left out → results.
Operator = Callable[[Sequence[Tensor | None]], tuple[Tensor, ...]]


def refused(node: onnx.NodeProto, why: str) -> LoweringError:
    """The error that says what of a node is not handled."""
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return LoweringError(
        f"quantisation-aware training: operator {kind} (node '{node.name or node.output[0]}') {why}",
        "search this network without the pass 'qat'",
    )


class Node:
    """A node with what is constant around it."""

    def __init__(self, node: onnx.NodeProto, constants: Mapping[str, Tensor]) -> None:
        self.proto = node
        self._constants = constants

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute, text decoded."""
        value = attribute(self.proto, name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, position: int) -> bool:
        """Whether the operand is there."""
        return len(self.proto.input) > position and bool(self.proto.input[position])

    def values(self, position: int, default: list[Any]) -> list[Any]:
        """A constant operand as numbers; ``default`` where it is left out."""
        if not self.has(position):
            return default
        constant = self._constants.get(self.proto.input[position])
        if constant is None:
            raise self.refused(f"has operand {position} computed at run time, which is not handled")
        return list(constant.reshape(-1).tolist())

    def is_constant(self, position: int) -> bool:
        """Whether the operand is there and constant."""
        return self.has(position) and self.proto.input[position] in self._constants

    def refused(self, why: str) -> LoweringError:
        """The error that says what of this node is not handled."""
        return refused(self.proto, why)


def given(operand: Tensor | None) -> Tensor:
    """An operand that a valid model cannot leave out."""
    assert operand is not None, "the checker has seen that operands are there"
    return operand
