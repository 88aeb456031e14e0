"""Candidates of the topologies, written once per test session, and the oracle their numerics are held to."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from numpy.typing import NDArray

from bitfront.backends import get_backend
from bitfront.backends.ort.cpu import open_session
from bitfront.core import FP32, Artifact, CalibrationSettings, ContentStore, Inputs, Scheme
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from tests.lowering.topologies import inputs_of, reference_of

# Lowest signal-to-noise ratio of outputs in dB that any topology may reach with each scheme.
FLOOR_DB = {
    "fp16": 60.0,
    "int8:mse": 28.0,
    "int4:gptq": 12.0,
    "int8:mse:weight-only": 36.0,
    "int4:gptq:weight-only": 12.0,
    "int4:mse:block32": 14.0,
}
# How far below its pinned value an output may fall before the numbers are called wrong: kernels of other
# processors round differently, by hundredths of a dB.
TOLERANCE_DB = 0.75


@cache
def lowerer_of(name: str) -> Lowerer:
    reference = reference_of(name)
    settings = CalibrationSettings()
    return Lowerer(reference, get_dialect("ort-cpu"), inputs_of(reference), settings, ContentStore(None))


def uniform(lowerer: Lowerer, text: str) -> dict[str, Scheme]:
    """Every layer at the scheme, or at FP32 where it is not offered."""
    scheme = Scheme.parse(text)
    return {layer.name: scheme if scheme in layer.schemes else FP32 for layer in lowerer.quantisable.layers}


@cache
def expected_outputs(name: str) -> tuple[NDArray[np.generic], ...]:
    lowerer = lowerer_of(name)
    return outputs_of(lowerer.lower(uniform(lowerer, "fp32")).data, inputs_of(lowerer.reference, seed=5))


@cache
def saturates() -> bool:
    """Whether 8-bit kernels saturate on this processor (x86 without VNNI), through no fault of a graph."""
    return not get_backend("ort-cpu").capabilities().supported["int8-full-range"]


def outputs_of(model: bytes, inputs: Inputs) -> tuple[NDArray[np.generic], ...]:
    """What ONNX Runtime makes of a request; where its 8-bit kernels saturate, what the graph itself says."""
    return (
        as_written(model, inputs)
        if saturates()
        else get_backend("ort-cpu").compile(Artifact.onnx(model), threads=1).run(inputs)
    )


def as_written(model: bytes, inputs: Inputs) -> tuple[NDArray[np.generic], ...]:
    """Outputs of a graph run operator by operator: nothing is fused into kernels that differ between processors."""
    return tuple(open_session(model, threads=1, level="ORT_DISABLE_ALL").run(None, dict(inputs)))


def sqnr_db(expected: NDArray[np.generic], actual: NDArray[np.generic]) -> float:
    """Signal power over error power of a whole output, in dB."""
    wanted, found = expected.astype(np.float64), actual.astype(np.float64)
    assert wanted.shape == found.shape
    return float(10 * np.log10((wanted**2).mean() / max(((wanted - found) ** 2).mean(), 1e-30)))


def measured_db(name: str, model: bytes) -> list[float]:
    """SQNR of each output of a request."""
    found = outputs_of(model, inputs_of(lowerer_of(name).reference, seed=5))
    return [sqnr_db(wanted, actual) for wanted, actual in zip(expected_outputs(name), found, strict=True)]


def check_numerics(name: str, model: bytes, pinned_db: list[float]) -> None:
    """The oracle: no output falls below the SQNR that the right graph reaches."""
    for pinned, found in zip(pinned_db, measured_db(name, model), strict=True):
        assert found >= pinned - TOLERANCE_DB


def with_bug(model: bytes, stored: str, position: int, *, factor: float = 1, shift: float = 0) -> bytes:
    """A planted bug: operand ``position`` of the DequantizeLinear that reads ``stored`` is scaled and moved."""
    proto = onnx.load_from_string(model)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    (reader,) = [n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == stored]
    array = values[reader.input[position]]
    changed = (array.astype(np.float64) * factor + shift).astype(array.dtype)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(changed), "planted"))
    reader.input[position] = "planted"
    return bytes(proto.SerializeToString())


def text_of(model: bytes) -> str:
    """A graph as text: one line a node, one an initialiser with its type and shape; values only of small integers."""
    graph = onnx.load_from_string(model).graph
    lines = []
    for tensor in graph.initializer:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        line = f"{tensor.name}: {kind}{list(tensor.dims)}"
        if kind not in ("float", "float16", "int4") and int(np.prod(tensor.dims)) <= 8:
            line += f" = {onnx.numpy_helper.to_array(tensor).tolist()}"
        lines.append(line)
    for node in graph.node:
        attributes = ", ".join(
            f"{attribute.name}={onnx.helper.get_attribute_value(attribute)}"
            for attribute in sorted(node.attribute, key=lambda attribute: attribute.name)
        )
        label = f"{node.name}: " if node.name else ""
        lines.append(f"{label}{', '.join(node.output)} = {node.op_type}({', '.join(node.input)}) {attributes}".rstrip())
    return "\n".join(lines) + "\n"
