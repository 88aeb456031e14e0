"""Networks that read images and text, and data read for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitfront.search.inputs.data.base import CALIB, LoadedData
from bitfront.search.inputs.data.registry import load_data
from tests.references import load_reference

VOCABULARY = ("[PAD]", "[UNK]", "the", "cat", "sat", "on", "mat", "dog")
Shape = Sequence[int | str]


def image_network(shape: Shape = ("n", 3, 8, 8), kind: int = TensorProto.FLOAT, classes: int = 2) -> onnx.ModelProto:
    """Pixels of a small image, flattened, and a classifier on them."""
    size = int(np.prod([axis for axis in shape[1:] if isinstance(axis, int)]))
    weights = np.random.default_rng(0).standard_normal((size, classes)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"], name="fc"),
    ]
    return model(nodes, {"pixels": (kind, shape)}, {"scores": ("n", classes)}, {"w": weights})


def text_network(
    inputs: Sequence[str] = ("input_ids", "attention_mask"), tokens: int | str = "tokens", classes: int = 2
) -> onnx.ModelProto:
    """The embeddings of a sample's tokens, those that are masked left out, added up, and a classifier on that."""
    generator = np.random.default_rng(0)
    weights = {
        "table": generator.standard_normal((len(VOCABULARY), 8)).astype(np.float32),
        "w": generator.standard_normal((8, classes)).astype(np.float32),
        "last": np.array([2]),
        "one": np.array([1]),
    }
    nodes = [helper.make_node("Gather", ["table", inputs[0]], ["embedded"])]
    read = "embedded"
    if len(inputs) > 1:
        nodes += [
            helper.make_node("Cast", [inputs[1]], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Mul", ["embedded", "column"], ["masked"]),
        ]
        read = "masked"
    nodes += [
        helper.make_node("ReduceSum", [read, "one"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["sum", "w"], ["scores"], name="fc"),
    ]
    shapes: dict[str, tuple[int, Shape]] = {name: (TensorProto.INT64, ("n", tokens)) for name in inputs}
    kept = {name: value for name, value in weights.items() if any(name in node.input for node in nodes)}
    return model(nodes, shapes, {"scores": ("n", classes)}, kept)


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, Shape],
    weights: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def read(net: onnx.ModelProto, spec: Path | str, option: str = CALIB, **options: str) -> LoadedData:
    """Data for a network, which is written to ``net.onnx`` in the working folder, with ``--data-options``."""
    path = Path("net.onnx")
    onnx.save(net, path)
    return load_data(str(spec), option, tuple(options.items()), path, load_reference(path))
