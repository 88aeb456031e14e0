"""The floating form of quantised tensors while a graph is rewritten: of constants, and of what operators write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.lowering.graph import MOVING, GraphView, attribute, free_name, tensor_names

MICROSOFT = "com.microsoft"
# Operators whose results are not below zero: a quantiser behind them cuts nothing off.
_NOT_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "HardSigmoid", "Clip", "Abs", "Exp", "HardSwish")


# A tensor with its scale and zero point, each in type, shape and bytes.
_Key = tuple[str, *tuple[tuple[str, tuple[int, ...], bytes] | None, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """The floating form of whole numbers that wait for their scales.

    Attributes:
        value: The floating tensor: the whole numbers times all of ``scales``.
        product: The MatMul or Conv that writes it, over a constant weight; None where something else does.
        scales: Tensors that the graph still multiplies the whole numbers with.
    """

    value: str
    product: onnx.NodeProto | None
    scales: tuple[str, ...]


@dataclass(slots=True)
class Forms:
    """A graph being rewritten.

    Attributes:
        graph: Takes new constants.
        view: Of the graph as it was.
        nodes: New nodes, in order.
        floats: Quantised tensor → its floating form.
        zeros: Quantised tensor → name of its zero point, empty where it has none.
        scale_of: Quantised tensor → name of its scale.
        scaled: Tensor of whole numbers → its floating form.
        constants: Constant, or one moved about, with its scale and zero point → its floating form, so that each is
            written once.
    """

    graph: onnx.GraphProto
    view: GraphView = field(init=False)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    floats: dict[str, str] = field(default_factory=dict)
    zeros: dict[str, str] = field(default_factory=dict)
    scale_of: dict[str, str] = field(default_factory=dict)
    scaled: dict[str, Scaled] = field(default_factory=dict)
    _taken: set[str] = field(init=False)
    constants: dict[_Key, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.view = GraphView(self.graph)
        self._taken = tensor_names(self.graph)

    def fresh(self, name: str) -> str:
        """A tensor name that is not taken."""
        return free_name(name, self._taken)

    def node(
        self, op: str, inputs: Sequence[str], output: str, *, like: onnx.NodeProto | None = None, **attributes: Any
    ) -> str:
        """Write a node; returns its output.

        Args:
            op: Its operator, of the standard domain.
            inputs: What it reads.
            output: What it writes.
            like: The node whose name it takes; None leaves it without one.
            attributes: Its attributes.
        """
        name = like.name if like is not None else None
        self.nodes.append(helper.make_node(op, inputs, [output], name, **attributes))
        return output

    def constant(self, value: NDArray[Any], name: str) -> str:
        """A new initialiser."""
        made = self.fresh(name)
        self.graph.initializer.append(numpy_helper.from_array(value, made))
        return made

    def array(self, name: str) -> NDArray[Any] | None:
        """The value of a constant of the graph as it was; None for anything else and for an input left out."""
        return self.view.array(name) if name else None

    def weight(
        self, integers: str, scale: NDArray[Any] | None, zero: NDArray[Any] | None, axis: int = -1
    ) -> str | None:
        """The floating form of a constant; None where it is none, or of a shape that scales do not fit.

        Args:
            integers: The constant.
            scale: One for all, or one a channel along ``axis``; None leaves the whole numbers unscaled.
            zero: What stands for zero, of the scale's shape; None is 0.
            axis: The axis of channels.
        """
        tensor = self.view.initializers.get(integers)
        if tensor is None:
            return None
        parts = [_along(part, len(tensor.dims), axis, tensor.dims) for part in (scale, zero)]
        if any(part is None and given is not None for part, given in zip(parts, (scale, zero), strict=True)):
            return None
        return self.computed(integers, *parts)

    def computed(self, integers: str, scale: NDArray[Any] | None, zero: NDArray[Any] | None) -> str:
        """(integers − zero) · scale, for what broadcasts already."""
        key = _key(integers, scale, zero)
        if key in self.constants:
            return self.constants[key]
        base = integers.removesuffix("_quantized")
        kind = np.dtype(np.float32) if scale is None else scale.dtype
        to = helper.np_dtype_to_tensor_dtype(kind)
        last = self.node("Cast", [integers], self.fresh(f"{base}_whole"), to=to)
        if zero is not None and zero.any():
            least = self.constant(zero.astype(kind), f"{base}_zero")
            last = self.node("Sub", [last, least], self.fresh(f"{base}_centred"))
        if scale is not None:
            last = self.node("Mul", [last, self.constant(scale, f"{base}_scale")], self.fresh(base))
        self.constants[key] = last
        return last

    def put(self, tensor: str, value: str, scale: str, zero: str) -> None:
        """Note the floating form of a quantised tensor."""
        self.floats[tensor], self.scale_of[tensor], self.zeros[tensor] = value, scale, zero

    def operand(self, names: Sequence[str], axis: int = -1) -> str | None:
        """The floating form of (tensor, scale, zero point), a constant or one that was noted; None where there is none.

        Args:
            names: Their names; the zero point may be missing or empty.
            axis: The axis of channels of a constant.
        """
        tensor, scale, zero = (*names, "")[:3]
        if tensor in self.floats:
            same = self._same(scale, self.scale_of[tensor]) and self._same(zero, self.zeros[tensor])
            return self.floats[tensor] if same else None
        factor, offset = self.array(scale), self.array(zero)
        return None if factor is None or (zero and offset is None) else self.weight(tensor, factor, offset, axis)

    def result(self, tensor: str, value: str, scale: str, zero: str, source: str = "") -> bool:
        """Note what a quantiser writes; where it may have cut off what is below zero, that is cut off still.

        Args:
            tensor: The quantised tensor.
            value: What is quantised.
            scale: Name of its scale, constant and one for all.
            zero: Name of its zero point.
            source: Operator that wrote ``value``.
        """
        step, offset = self.array(scale), self.array(zero)
        if step is None or step.size != 1 or (zero and offset is None):
            return False
        offset = np.zeros((), np.uint8) if offset is None else offset.reshape(())
        if offset.dtype.kind not in "iu" or offset.dtype.itemsize > 2:
            return False
        ends = np.iinfo(offset.dtype)
        if int(offset) == ends.min and source not in _NOT_NEGATIVE:
            high = np.asarray((ends.max - ends.min) * step.reshape(()), step.dtype)
            limits = [self.constant(np.zeros((), step.dtype), f"{tensor}_low"), self.constant(high, f"{tensor}_high")]
            value = self.node("Clip", [value, *limits], self.fresh(f"{tensor}_cut"))
        self.put(tensor, value, scale, zero)
        return True

    def _same(self, one: str, other: str) -> bool:
        first, second = self.array(one), self.array(other)
        if one == other or first is None or second is None:
            return one == other or (first is None and second is None and not (one and other))
        return bool(np.array_equal(first.reshape(-1), second.reshape(-1)))


def _along(part: NDArray[Any] | None, axes: int, axis: int, dims: Sequence[int]) -> NDArray[Any] | None:
    """A scale or zero point in a shape that broadcasts along ``axis``; None where it does not fit."""
    if part is None or part.size == 1:
        return None if part is None else part.reshape(())
    if part.ndim != 1 or not axes or part.size != dims[axis]:
        return part if part.ndim == axes else None
    shape = [1] * axes
    shape[axis] = -1
    return part.reshape(shape)


def _key(tensor: str, *parts: NDArray[Any] | None) -> _Key:
    return (tensor, *(None if part is None else (part.dtype.name, part.shape, part.tobytes()) for part in parts))


def domain_of(node: onnx.NodeProto) -> tuple[str, str]:
    """(domain, operator), the standard domain as an empty one."""
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type)


def as_floats(node: onnx.NodeProto, forms: Forms) -> bool:
    """Write an operator over a constant that is stored as integers in floating point; False leaves it."""
    names = [*node.input, *[""] * 6]
    if node.op_type == "DequantizeLinear":
        value = _dequantised(node, names, forms)
        return value is not None and bool(forms.node("Identity", [value], node.output[0]))
    if node.op_type == "GatherBlockQuantized":
        table = _table(node, names, forms)
        if table is None:
            return False
        axis = int(attribute(node, "gather_axis", 0))
        return bool(forms.node("Gather", [table, names[1]], node.output[0], like=node, axis=axis))
    value = _blocks(node, names, forms)
    if value is None:
        return False
    product = forms.fresh(f"{node.output[0]}_product") if names[5] else node.output[0]
    forms.node("MatMul", [names[0], value], product, like=node)
    if names[5]:
        forms.node("Add", [product, names[5]], node.output[0])
    return True


def _dequantised(node: onnx.NodeProto, names: Sequence[str], forms: Forms) -> str | None:
    tensor, scale, zero = forms.view.initializers.get(names[0]), forms.array(names[1]), forms.array(names[2])
    if tensor is None and scale is not None and scale.size == 1 and (zero is not None or not names[2]):
        return _moved(names[0], scale, zero, forms)
    if tensor is None or scale is None or (names[2] and zero is None) or forms.view.is_output(node.output[0]):
        return None
    axis, block = int(attribute(node, "axis", 1)), int(attribute(node, "block_size", 0))
    if not block:
        return forms.weight(names[0], scale, zero, axis)
    return _in_blocks(forms, names[0], list(tensor.dims), axis % len(tensor.dims), block, scale, zero)


def is_stored(tensor: str, view: GraphView) -> bool:
    """Whether a tensor is a constant, looked up in one, or one moved about."""
    while tensor not in view.initializers:
        index = view.producer(tensor)
        if index is None or view.nodes[index].op_type not in MOVING:
            return False
        tensor = view.nodes[index].input[0]
    return True


def _moved(tensor: str, scale: NDArray[Any], zero: NDArray[Any] | None, forms: Forms) -> str | None:
    """The floating form of integers that were looked up in a constant, or moved about; None where they are none."""
    if tensor in forms.view.initializers:
        return forms.weight(tensor, scale, zero)
    key = _key(tensor, scale, zero)
    index = forms.view.producer(tensor)
    node = forms.view.nodes[index] if index is not None else None
    if key in forms.constants or node is None or node.op_type not in MOVING:
        return forms.constants.get(key)
    source = _moved(node.input[0], scale, zero, forms)
    if source is None:
        return None
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    copied.input[0], copied.output[0] = source, forms.fresh(f"{tensor}_float")
    forms.nodes.append(copied)
    forms.constants[key] = copied.output[0]
    return forms.constants[key]


def _in_blocks(
    forms: Forms,
    integers: str,
    dims: list[int],
    axis: int,
    block: int,
    scale: NDArray[Any],
    zero: NDArray[Any] | None,
) -> str | None:
    """The floating form of integers with a scale for each ``block`` of an axis that is a whole number of them."""
    if dims[axis] % block:
        return None
    base = integers.removesuffix("_quantized")
    split = [*dims[:axis], dims[axis] // block, block, *dims[axis + 1 :]]
    parted = forms.constant(np.array(split), f"{base}_blocks")
    wide = forms.node("Cast", [integers], forms.fresh(f"{base}_whole"), to=helper.np_dtype_to_tensor_dtype(scale.dtype))
    last = forms.node("Reshape", [wide, parted], forms.fresh(f"{base}_parted"))
    if zero is not None and zero.astype(np.float32).any():
        least = forms.constant(np.expand_dims(zero.astype(scale.dtype), axis + 1), f"{base}_zero")
        last = forms.node("Sub", [last, least], forms.fresh(f"{base}_centred"))
    factor = forms.constant(np.expand_dims(scale, axis + 1), f"{base}_scale")
    last = forms.node("Mul", [last, factor], forms.fresh(f"{base}_scaled"))
    whole = forms.constant(np.array(dims), f"{base}_shape")
    return forms.node("Reshape", [last, whole], forms.fresh(base))


def _unpacked(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8] | None:
    """The last axis of bytes as its numbers of 4 or 8 bits, the lower ones first."""
    if bits == 8:
        return packed
    if bits != 4:
        return None
    pairs = np.stack([packed & 15, packed >> 4], axis=-1)
    return pairs.reshape(*packed.shape[:-1], -1)


def _blocks(node: onnx.NodeProto, names: Sequence[str], forms: Forms) -> str | None:
    """The floating (in, out) weight of a MatMulNBits; None where it is of no form that is known."""
    sizes: Mapping[str, int] = {key: int(attribute(node, key, 0)) for key in ("K", "N", "bits", "block_size")}
    packed, scale, zero = forms.array(names[1]), forms.array(names[2]), forms.array(names[3])
    bits = sizes["bits"] or 4
    if packed is None or scale is None or names[4] or (names[3] and (zero is None or zero.dtype != np.uint8)):
        return None
    numbers = _unpacked(packed, bits)
    if numbers is None:
        return None
    rows, reduction, block = sizes["N"], sizes["K"], sizes["block_size"]
    groups = -(-reduction // block)
    middle = np.full((rows, groups), 1 << (bits - 1), np.int64)
    if zero is not None:
        offsets = _unpacked(zero.reshape(rows, -1), bits)
        middle = offsets[:, :groups].astype(np.int64) if offsets is not None else middle
    centred = numbers.reshape(rows, groups, block).astype(np.int64) - middle[:, :, None]
    return _scaled_blocks(forms, names[1], centred, scale.reshape(rows, groups), reduction)


def _scaled_blocks(forms: Forms, name: str, centred: NDArray[Any], scale: NDArray[Any], reduction: int) -> str:
    """(in, out) of integers (out, groups, block) and their scales, as nodes over integers of 4 bits where they fit."""
    rows, groups, block = centred.shape
    base = name.removesuffix("_quantized").removesuffix("_Q4")
    small = centred.min() >= -8 and centred.max() <= 7
    integers = forms.fresh(f"{base}_integers")
    if small:
        forms.graph.initializer.append(
            helper.make_tensor(integers, TensorProto.INT4, centred.shape, centred.reshape(-1).tolist())
        )
    else:
        forms.graph.initializer.append(numpy_helper.from_array(centred.astype(np.int16), integers))
    kind = helper.np_dtype_to_tensor_dtype(scale.dtype)
    wide = forms.node("Cast", [integers], forms.fresh(f"{base}_whole"), to=kind)
    factor = forms.constant(scale[:, :, None], f"{base}_scale")
    last = forms.node("Mul", [wide, factor], forms.fresh(f"{base}_scaled"))
    flat = forms.constant(np.array([rows, groups * block]), f"{base}_shape")
    last = forms.node("Reshape", [last, flat], forms.fresh(f"{base}_rows"))
    if groups * block != reduction:
        ends = [forms.constant(np.array([end]), f"{base}_end") for end in (0, reduction, 1)]
        last = forms.node("Slice", [last, *ends], forms.fresh(f"{base}_whole_rows"))
    return forms.node("Transpose", [last], forms.fresh(base), perm=[1, 0])


def _table(node: onnx.NodeProto, names: Sequence[str], forms: Forms) -> str | None:
    """The floating table of a GatherBlockQuantized of 4- or 8-bit tensors; None where it is packed otherwise."""
    tensor, scale, zero = forms.view.initializers.get(names[0]), forms.array(names[2]), forms.array(names[3])
    if tensor is None or scale is None or (names[3] and zero is None):
        return None
    if tensor.data_type not in (TensorProto.INT4, TensorProto.UINT4):
        return None
    dims, axis = list(tensor.dims), int(attribute(node, "quantize_axis", 1)) % len(tensor.dims)
    return _in_blocks(forms, names[0], dims, axis, int(attribute(node, "block_size", 128)), scale, zero)
