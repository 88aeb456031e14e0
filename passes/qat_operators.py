"""ONNX operators as torch functions, for the networks that quantisation-aware training runs.

``compile_operator`` turns a node into a function of its operands. Operands that say *how* to compute (shapes, axes,
pads, bounds) must be constants and are read once; a Reshape's shape may also be computed.

Not handled: all operators that are not listed, loops and branches; whoever asks for them is told their name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx
import torch
from torch import Tensor
from torch.nn import functional

from bitfront.passes.qat_conv_pool import average_pool, conv, conv_transpose, global_average_pool, max_pool, torch_pads
from bitfront.passes.qat_node import Node, Operator, given, refused

_Compiler = Callable[[Node], Operator]

KINDS: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}


def compile_operator(node: onnx.NodeProto, constants: Mapping[str, Tensor]) -> Operator:
    """The node as a function.

    Args:
        node: The node.
        constants: Constant tensors by name.

    Raises:
        LoweringError: If the operator, or the form it has here, is not handled.
    """
    compiler = _COMPILERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if compiler is None:
        raise refused(node, "is not handled")
    return compiler(Node(node, constants))


def _unary(function: Callable[[Tensor], Tensor]) -> _Compiler:
    return lambda _: lambda x: (function(given(x[0])),)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> _Compiler:
    return lambda _: lambda x: (function(given(x[0]), given(x[1])),)


def _gemm(node: Node) -> Operator:
    alpha, beta = float(node.attribute("alpha", 1.0)), float(node.attribute("beta", 1.0))
    left, right = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        a, b = given(x[0]), given(x[1])
        product = (a.T if left else a) @ (b.T if right else b)
        product = product if alpha == 1 else product * alpha
        bias = x[2] if len(x) > 2 else None
        return (product if bias is None else product + (bias if beta == 1 else bias * beta),)

    return run


def _clip(node: Node) -> Operator:
    low = node.values(1, [None])[0]
    high = node.values(2, [None])[0]
    return lambda x: (torch.clamp(given(x[0]), low, high),)


def _reduce_mean(node: Node) -> Operator:
    axes, keep = [int(axis) for axis in node.values(1, [])], bool(node.attribute("keepdims", 1))
    return lambda x: (given(x[0]).mean(dim=axes or None, keepdim=keep),)


def _concat(node: Node) -> Operator:
    axis = int(node.attribute("axis", 0))
    return lambda x: (torch.cat([given(part) for part in x], dim=axis),)


def _reshape(node: Node) -> Operator:
    known = [int(size) for size in node.values(1, [])] if node.is_constant(1) else None
    keeps_zero = bool(node.attribute("allowzero", 0))

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        source = given(x[0])
        sizes = known if known is not None else [int(size) for size in given(x[1]).tolist()]
        if not keeps_zero:
            sizes = [source.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
        return (source.reshape(sizes),)

    return run


def _flatten(node: Node) -> Operator:
    axis = int(node.attribute("axis", 1))

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        source = given(x[0])
        rows = 1
        for size in source.shape[:axis]:
            rows *= size
        return (source.reshape(rows, -1),)

    return run


def _transpose(node: Node) -> Operator:
    order = node.attribute("perm", None)
    return lambda x: (given(x[0]).permute(list(order) if order else tuple(reversed(range(given(x[0]).dim())))),)


def _squeeze(node: Node) -> Operator:
    axes = tuple(int(axis) for axis in node.values(1, []))
    return lambda x: (given(x[0]).squeeze(axes) if axes else given(x[0]).squeeze(),)


def _unsqueeze(node: Node) -> Operator:
    axes = [int(axis) for axis in node.values(1, [])]

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        source = given(x[0])
        rank = source.dim() + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            source = source.unsqueeze(axis)
        return (source,)

    return run


def _slice(node: Node) -> Operator:
    starts, ends = node.values(1, []), node.values(2, [])
    axes, steps = node.values(3, list(range(len(starts)))), node.values(4, [1] * len(starts))

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        source = given(x[0])
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            size = source.shape[axis]
            # A negative step's end before the first entry is −size − 1 or less; Python calls that None.
            stop = None if step < 0 and end < -size else end
            if step > 0:
                source = source[(slice(None),) * (axis % source.dim()) + (slice(start, stop, step),)]
                continue
            wanted = range(size)[slice(start, stop, step)]
            source = source.index_select(axis, torch.tensor(list(wanted), device=source.device))
        return (source,)

    return run


def _pad(node: Node) -> Operator:
    pads, value = [int(pad) for pad in node.values(1, [])], node.values(2, [0.0])[0]
    if node.has(3):
        raise node.refused("has axes, which is not handled")
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(node.attribute("mode", "constant"))
    if mode is None:
        raise node.refused(f"has mode {node.attribute('mode', '')}, which is not handled")
    if mode == "constant":
        return lambda x: (functional.pad(given(x[0]), torch_pads(pads), value=value),)
    around = torch_pads(pads)
    while around[-2:] == [0, 0]:  # torch takes pads of the last axes alone
        del around[-2:]
    return lambda x: (functional.pad(given(x[0]), around, mode=mode),)


def _gather(node: Node) -> Operator:
    axis = int(node.attribute("axis", 0))

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        source, places = given(x[0]), given(x[1]).long()
        size = source.shape[axis]
        found = source.index_select(axis, torch.where(places < 0, places + size, places).reshape(-1))
        at = axis % source.dim()
        return (found.reshape(*source.shape[:at], *places.shape, *source.shape[at + 1 :]),)

    return run


def _split(node: Node) -> Operator:
    axis, count = int(node.attribute("axis", 0)), len(node.proto.output)
    sizes = [int(size) for size in node.values(1, [])]

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        source = given(x[0])
        return tuple(torch.split(source, sizes or -(-source.shape[axis] // count), dim=axis))

    return run


def _cast(node: Node) -> Operator:
    kind = KINDS.get(int(node.attribute("to", 0)))
    if kind is None:
        raise node.refused("casts to a type that is not handled")
    return lambda x: (given(x[0]).to(kind),)


def _dequantise(node: Node) -> Operator:
    if node.attribute("block_size", 0):
        raise node.refused("has block_size, which is not handled")
    axis = int(node.attribute("axis", 1))

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        integers, scale = given(x[0]), given(x[1])
        shape = [1] * integers.dim()
        if scale.numel() > 1:
            shape[axis] = -1
        centred = integers.to(scale.dtype)
        if len(x) > 2 and x[2] is not None:
            centred = centred - x[2].to(scale.dtype).reshape(shape)
        return (centred * scale.reshape(shape),)

    return run


def _softmax(node: Node) -> Operator:
    axis = int(node.attribute("axis", -1))
    return lambda x: (torch.softmax(given(x[0]), dim=axis),)


def _leaky_relu(node: Node) -> Operator:
    slope = float(node.attribute("alpha", 0.01))
    return lambda x: (functional.leaky_relu(given(x[0]), slope),)


def _hard_sigmoid(node: Node) -> Operator:
    alpha, beta = float(node.attribute("alpha", 0.2)), float(node.attribute("beta", 0.5))
    return lambda x: (torch.clamp(given(x[0]) * alpha + beta, 0, 1),)


def _gelu(node: Node) -> Operator:
    approximate = node.attribute("approximate", "none")
    return lambda x: (functional.gelu(given(x[0]), approximate=approximate),)


def _batch_norm(node: Node) -> Operator:
    epsilon = float(node.attribute("epsilon", 1e-5))

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        source, scale, shift, mean, variance = (given(part) for part in x)
        return (functional.batch_norm(source, mean, variance, scale, shift, eps=epsilon),)

    return run


def _layer_norm(node: Node) -> Operator:
    axis, epsilon = int(node.attribute("axis", -1)), float(node.attribute("epsilon", 1e-5))

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        source = given(x[0])
        shape = source.shape[axis % source.dim() :]
        return (functional.layer_norm(source, shape, x[1], x[2] if len(x) > 2 else None, epsilon),)

    return run


_COMPILERS: dict[str, _Compiler] = {
    "Add": _binary(torch.add),
    "AveragePool": average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DequantizeLinear": _dequantise,
    "Div": _binary(torch.div),
    "Erf": _unary(torch.erf),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": global_average_pool,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "Identity": _unary(lambda x: x),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "MatMul": _binary(torch.matmul),
    "MaxPool": max_pool,
    "Mul": _binary(torch.mul),
    "Pad": _pad,
    "Pow": _binary(torch.pow),
    "ReduceMean": _reduce_mean,
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Shape": _unary(lambda x: torch.tensor(x.shape, dtype=torch.int64)),
    "Sigmoid": _unary(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
