"""Generated networks of any size, with random weights: an encoder of feed-forward blocks and a causal decoder.

Written tensor by tensor, inside the model's file or in one beside it, so that neither needs memory for the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 21, 10
ENCODER_VOCABULARY, DECODER_VOCABULARY = 30_522, 16_000


class Graph:
    """Nodes and weights of a network while it is put together."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []  # without their values
        self.constants: list[TensorProto] = []

    def weight(self, name: str, *shape: int) -> str:
        """Add a weight of a shape."""
        self.weights.append(TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape))
        return name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a tensor of known value."""
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add an operator of one output, which is named as it is."""
        self.nodes.append(helper.make_node(operator, inputs, [name], name=f"{name}_node", **attributes))
        return name


def encoder(megabytes: float, *, width: int = 768, inner: int = 3072, vocabulary: int = ENCODER_VOCABULARY) -> Graph:
    """An encoder of about a size: a table, then feed-forward blocks with biases and residual sums; output ``y``."""
    graph = Graph()
    last = graph.node("Gather", [graph.weight("table", vocabulary, width), "ids"], "x0")
    block_bytes = 4 * (2 * width * inner + inner + width)
    blocks = max(1, round((megabytes * 1e6 - 4 * width * vocabulary) / block_bytes))
    for block in range(blocks):
        last = _feed_forward(graph, last, str(block), width, inner, bias=True)
    graph.node("Identity", [last], "y")
    return graph


def decoder(
    megabytes: float,
    *,
    width: int = 4096,
    inner: int = 16_384,
    vocabulary: int = DECODER_VOCABULARY,
    heads: int = 32,
    length: int = 16,
) -> Graph:
    """A causal decoder of about a size: a table, blocks of attention and feed-forward, a head; output ``y``, logits."""
    graph = Graph()
    last = graph.node("Gather", [graph.weight("table", vocabulary, width), "ids"], "x0")
    mask = np.triu(np.full((length, length), -1e4, np.float32), 1)
    graph.constant("mask", mask)
    graph.constant("split", np.array([0, length, heads, width // heads]))
    graph.constant("joined", np.array([0, length, width]))
    graph.constant("root", np.array(np.sqrt(width / heads), np.float32))
    blocks = max(1, round((megabytes * 1e6 - 8 * width * vocabulary) / (4 * (4 * width**2 + 2 * width * inner))))
    for block in range(blocks):
        last = _attention(graph, last, str(block), width)
        last = _feed_forward(graph, last, str(block), width, inner, bias=False)
    normal = _normal(graph, last, "last_normal", width)
    graph.node("MatMul", [normal, graph.weight("head", width, vocabulary)], "y")
    return graph


def save(graph: Graph, path: Path, *, external: bool, length: int | None = None, seed: int = 0) -> None:
    """Write a network of ``ids`` (n, length) → ``y``.

    Args:
        graph: Its operators and weights.
        path: The model's file; external weights go to the same name with ``.data``.
        external: Needed beyond 2 GB.
        length: Of the sequence; None leaves it open.
        seed: Of the weights, normal with the deviation that keeps sums at unit variance.
    """
    generator = np.random.default_rng(seed)
    size = length or "sequence"
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", size])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", size, "values"])
    made = helper.make_graph(graph.nodes, "generated", [ids], [answer], [*graph.weights, *graph.constants])
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(made, opset_imports=[opset], ir_version=IR_VERSION)
    beside = path.with_suffix(".data")
    beside.write_bytes(b"")
    for tensor in model.graph.initializer[: len(graph.weights)]:
        shape = tuple(tensor.dims)
        values = generator.standard_normal(prod(shape), dtype=np.float32)
        values /= np.float32(np.sqrt(shape[0]) if len(shape) > 1 else 10)
        if not external:
            tensor.raw_data = values.tobytes()
            continue
        with beside.open("ab") as file:
            place = {"location": beside.name, "offset": file.tell(), "length": values.nbytes}
            values.tofile(file)
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        tensor.data_location = TensorProto.EXTERNAL
    if not external:
        beside.unlink()
    onnx.save(model, path)


def _normal(graph: Graph, tensor: str, name: str, width: int) -> str:
    scale = graph.constant(f"{name}_scale", np.ones(width, np.float32))
    return graph.node("LayerNormalization", [tensor, scale], name, axis=-1)


def _feed_forward(graph: Graph, tensor: str, block: str, width: int, inner: int, *, bias: bool) -> str:
    """A block with its residual sum: with biases as in encoders, or with a normalisation in front as in decoders."""
    last = tensor if bias else _normal(graph, tensor, f"normal_up{block}", width)
    for name, wide, narrow in (("up", width, inner), ("down", inner, width)):
        last = graph.node("MatMul", [last, graph.weight(f"{name}{block}", wide, narrow)], f"{name}{block}_product")
        if bias:
            last = graph.node("Add", [last, graph.weight(f"{name}{block}_bias", narrow)], f"{name}{block}_sum")
        if name == "up":
            last = graph.node("Relu", [last], f"relu{block}")
    return graph.node("Add", [tensor, last], f"x{int(block) + 1}")


def _attention(graph: Graph, tensor: str, block: str, width: int) -> str:
    normal = _normal(graph, tensor, f"normal_attention{block}", width)
    parts = {}
    for name, order in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3))):
        product = graph.node("MatMul", [normal, graph.weight(f"{name}{block}", width, width)], f"{name}{block}_product")
        heads = graph.node("Reshape", [product, "split"], f"{name}{block}_heads")
        parts[name] = graph.node("Transpose", [heads], f"{name}{block}_turned", perm=order)
    scores = graph.node("MatMul", [parts["query"], parts["key"]], f"scores{block}")
    scaled = graph.node("Div", [scores, "root"], f"scaled{block}")
    masked = graph.node("Add", [scaled, "mask"], f"masked{block}")
    weights = graph.node("Softmax", [masked], f"attention{block}", axis=-1)
    mixed = graph.node("MatMul", [weights, parts["value"]], f"mixed{block}")
    turned = graph.node("Transpose", [mixed], f"mixed{block}_turned", perm=(0, 2, 1, 3))
    joined = graph.node("Reshape", [turned, "joined"], f"mixed{block}_joined")
    product = graph.node("MatMul", [joined, graph.weight(f"mix{block}", width, width)], f"mix{block}_product")
    return graph.node("Add", [tensor, product], f"attended{block}")
