"""Convolution and pooling operators of ONNX as torch functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional

from bitfront.passes.qat_node import Node, Operator, given


def _window(node: Node, rank: int) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations and pads (begins, then ends) of an operator over ``rank`` axes."""
    if node.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise node.refused("has auto_pad, which is not handled")
    strides, dilations = (list(node.attribute(name, [1] * rank)) for name in ("strides", "dilations"))
    return strides, dilations, list(node.attribute("pads", [0] * 2 * rank))


def torch_pads(pads: Sequence[int]) -> list[int]:
    """ONNX's begins and ends → torch's pairs, last axis first."""
    rank = len(pads) // 2
    return [side for axis in reversed(range(rank)) for side in (pads[axis], pads[rank + axis])]


def _split_pads(pads: list[int]) -> tuple[list[int], list[int] | None]:
    """Pads torch's operator can take itself, and pads to put around its input before."""
    rank = len(pads) // 2
    if pads[:rank] == pads[rank:]:
        return pads[:rank], None
    return [0] * rank, torch_pads(pads)


def conv(node: Node) -> Operator:
    """Conv over one to three axes."""
    groups = int(node.attribute("group", 1))

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        source, weight = given(x[0]), given(x[1])
        rank = weight.dim() - 2
        strides, dilations, pads = _window(node, rank)
        own, around = _split_pads(pads)
        if around is not None:
            source = functional.pad(source, around)
        convolve: Callable[..., Tensor] = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
        return (convolve(source, weight, x[2] if len(x) > 2 else None, strides, own, dilations, groups),)

    return run


def conv_transpose(node: Node) -> Operator:
    """ConvTranspose over one to three axes."""
    groups = int(node.attribute("group", 1))
    if node.attribute("output_shape", None) is not None:
        raise node.refused("has output_shape, which is not handled")

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        source, weight = given(x[0]), given(x[1])
        rank = weight.dim() - 2
        strides, dilations, pads = _window(node, rank)
        own, around = _split_pads(pads)
        if around is not None:
            raise node.refused("has unequal pads, which is not handled")
        more = list(node.attribute("output_padding", [0] * rank))
        convolutions = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
        convolve: Callable[..., Tensor] = convolutions[rank - 1]
        return (convolve(source, weight, x[2] if len(x) > 2 else None, strides, own, more, groups, dilations),)

    return run


def max_pool(node: Node) -> Operator:
    """MaxPool without indices."""
    kernel = list(node.attribute("kernel_shape", []))
    strides, dilations, pads = _window(node, len(kernel))
    if len(node.proto.output) > 1:
        raise node.refused("has indices as a result, which is not handled")
    own, around = _split_pads(pads)
    ceil = bool(node.attribute("ceil_mode", 0))
    pool: Callable[..., Tensor] = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[len(kernel) - 1]

    def run(x: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        source = given(x[0])
        if around is not None:
            source = functional.pad(source, around, value=float("-inf"))
        return (pool(source, kernel, strides, own, dilations, ceil_mode=ceil),)

    return run


def average_pool(node: Node) -> Operator:
    """Average pooling."""
    kernel = list(node.attribute("kernel_shape", []))
    strides, dilations, pads = _window(node, len(kernel))
    own, around = _split_pads(pads)
    if around is not None or any(dilation != 1 for dilation in dilations):
        raise node.refused("has unequal pads or dilations, which is not handled")
    ceil, counted = bool(node.attribute("ceil_mode", 0)), bool(node.attribute("count_include_pad", 0))
    pool: Callable[..., Tensor] = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(kernel) - 1]
    return lambda x: (pool(given(x[0]), kernel, strides, own, ceil, counted),)


def global_average_pool(_: Node) -> Operator:
    """Average over all positions."""
    return lambda x: (given(x[0]).mean(dim=tuple(range(2, given(x[0]).dim())), keepdim=True),)
