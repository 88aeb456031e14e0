"""Channels of zeros for tensors between quantised convolutions, so that the fast kernels take them.

ONNX Runtime's fast integer kernels (``ConvSym`` of MLAS) want 16 output channels or more of a dense convolution, and a
multiple of 16 channels of a depthwise one; others run several times slower. A tensor that only quantised convolutions
write and read can have more channels than the network says: its writer gets outputs with zero weights, its readers
inputs with zero weights. Nothing else changes, since zeros are exact.

Not handled: tensors that glue reads, and those whose writer is no dense quantised convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import Layer

MULTIPLE = 16


def padded_channels(view: GraphView, convs: Mapping[int, Layer], result_of: Callable[[int], str]) -> dict[str, int]:
    """Tensor → channels of zeros behind its own.

    Args:
        view: The graph.
        convs: Node index → layer, of the quantised two-dimensional convolutions.
        result_of: Node index → the tensor its quantiser writes.
    """
    results = {index: result_of(index) for index in convs}
    accepting: set[str] = set()
    for index in sorted(convs, reverse=True):
        tensor = results[index]
        readers = view.consumers(tensor)
        if not readers or view.is_output(tensor) or view.is_captured(tensor):
            continue
        if all(
            reader in convs
            and view.nodes[reader].input[0] == tensor
            and (_is_dense(convs[reader]) or (_is_depthwise(convs[reader]) and results[reader] in accepting))
            for reader in readers
        ):
            accepting.add(tensor)
    extra: dict[str, int] = {}
    for index in sorted(convs):
        layer, tensor = convs[index], results[index]
        if not _is_dense(layer) or tensor not in accepting:
            continue
        channels = layer.weight_shape[0]
        narrow = channels < MULTIPLE or any(_is_depthwise(convs[reader]) for reader in view.consumers(tensor))
        missing = -channels % MULTIPLE
        if narrow and 0 < missing <= channels:
            _widen(tensor, missing, view, convs, results, extra)
    return extra


def _widen(
    tensor: str,
    missing: int,
    view: GraphView,
    convs: Mapping[int, Layer],
    results: Mapping[int, str],
    extra: dict[str, int],
) -> None:
    extra[tensor] = missing
    for reader in view.consumers(tensor):
        if _is_depthwise(convs[reader]):
            _widen(results[reader], missing, view, convs, results, extra)


def _is_dense(layer: Layer) -> bool:
    return layer.conv_groups == 1


def _is_depthwise(layer: Layer) -> bool:
    return layer.conv_groups == layer.weight_shape[0] > 1 and layer.weight_shape[1] == 1
