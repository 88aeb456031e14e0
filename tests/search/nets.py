"""A small network with its data, for tests of the run: three convolutions and a classifier, labelled by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.backends.base import Backend
from bitfront.backends.ort.cpu import OrtCpuBackend
from bitfront.core import (
    Array,
    Artifact,
    CalibrationSettings,
    ContentStore,
    Inputs,
    Labelled,
    Metric,
    MetricFunction,
    top1,
)
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.options import RunOptions
from tests.references import load_reference

CHANNELS = 8
CLASSES = 4

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyWorkload:
    """Satisfies ``Workload``."""

    name: str
    model: Path
    calibration: Inputs
    evaluation: Labelled
    metric: Metric | MetricFunction


def tiny_network(bias: Logits | None = None) -> onnx.ModelProto:
    """Input x (n, 3, 8, 8) → conv1 → conv2 → conv3 → mean → fc, outputs (n, 4)."""
    rng = np.random.default_rng(5)
    nodes, weights = [], []
    previous, width = "x", 3
    for index in (1, 2, 3):
        scale = np.sqrt(2 / (9 * width))
        weights.append(_weight(f"conv{index}.weight", rng.normal(size=(CHANNELS, width, 3, 3)) * scale))
        nodes.append(
            helper.make_node("Conv", [previous, f"conv{index}.weight"], [f"c{index}"], f"conv{index}", pads=[1] * 4)
        )
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], f"relu{index}"))
        previous, width = f"r{index}", CHANNELS
    weights.append(_weight("fc.weight", rng.normal(size=(CHANNELS, CLASSES))))
    weights.append(_weight("fc.bias", np.zeros(CLASSES) if bias is None else bias))
    nodes += [
        helper.make_node("GlobalAveragePool", [previous], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], "fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def tiny_workload(folder: Path, samples: int = 400, metric: Metric | MetricFunction = top1) -> TinyWorkload:
    """The network in a file, with labels that are mostly what FP32 says."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.onnx"
    rng = np.random.default_rng(9)
    x = rng.normal(size=(8 * samples, 3, 8, 8)).astype(np.float32)
    # The bias makes all classes likely.
    network = tiny_network(bias=-_logits(tiny_network(), x).mean(axis=0))
    onnx.save(network, path)
    logits = _logits(network, x)
    # The samples FP32 is least sure of: the ones that low precisions get wrong.
    ordered = np.sort(logits, axis=1)
    unsure = rng.permutation(np.argsort(ordered[:, -1] - ordered[:, -2])[:samples])
    x, labels = x[unsure], logits[unsure].argmax(axis=1)
    wrong = rng.random(samples) < 0.1
    labels[wrong] = rng.integers(CLASSES, size=int(wrong.sum()))
    return TinyWorkload(
        name="tiny",
        model=path,
        calibration={"x": rng.normal(size=(64, 3, 8, 8)).astype(np.float32)},
        evaluation=Labelled(inputs={"x": x}, labels=labels),
        metric=metric,
    )


def tiny_lowerer(workload: TinyWorkload, backend: Backend, options: RunOptions) -> Lowerer:
    """As the command line makes it."""
    return Lowerer(
        load_reference(workload.model),
        get_dialect(backend.dialect),
        workload.calibration,
        options.calibration,
        ContentStore(options.out / "cache"),
    )


def few_samples() -> CalibrationSettings:
    """Calibration that is quick."""
    return CalibrationSettings(samples=32)


def mean_margin(outputs: tuple[Array, ...], labels: Array) -> float:
    """A metric that gives one number: the mean of the label's softmax probability."""
    logits = np.asarray(outputs[0], dtype=np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return float((odds[np.arange(len(labels)), labels.astype(int)] / odds.sum(axis=1)).mean())


def _logits(network: onnx.ModelProto, x: Logits) -> Logits:
    (output,) = OrtCpuBackend().compile(Artifact.onnx(network.SerializeToString()), threads=1).run({"x": x})
    return np.asarray(output, dtype=np.float32)


def _weight(name: str, values: NDArray[np.float64] | Logits) -> TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)
