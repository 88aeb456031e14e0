r"""Layers that a TensorRT engine runs, in terms of the artifact's nodes: its inspector's JSON and its profiler's times.

The inspector lists the layers left after fusion. Each names the ONNX nodes in it in ``Metadata``, as
``[ONNX Layer: conv1]\x1f[ONNX Layer: relu1]``, or else in its own name (``conv1 + relu1``). TensorRT 10 gives the
layout and type of a tensor as one text, ``Format/Datatype``; TensorRT 11 as ``Format`` and ``DataType`` (TensorRT
documentation, "Engine Inspector" and "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x"). Built without
detailed verbosity an engine lists names alone. Everything here is a function of texts.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bitfront.backends.base import ExecutedLayer
from bitfront.core import BackendError

_ONNX_LAYER = re.compile(r"\[ONNX Layer: (.*?)\](?=\s*(?:\x1f|\[ONNX Layer: |$))", re.DOTALL)
_TYPES = {
    "int8": "int8",
    "int4": "int4",
    "fp8": "fp8",
    "fp4": "fp4",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "half": "fp16",
    "fp16": "fp16",
    "float": "fp32",
    "fp32": "fp32",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "bool": "bool",
}
_TYPE = re.compile(r"\b(bfloat16|bf16|int8|uint8|int4|int32|int64|fp8|fp4|fp16|fp32|half|float|bool)\b", re.IGNORECASE)
# …_f32f32_tf32f32_f32_…: types of the operands and result, then what is multiplied and in what it is summed up.
_TACTIC = re.compile(
    r"_(?:tf32|bf16|f16|f32|i8|i4|e4m3|e5m2){2}_(tf32|bf16|f16|f32|i8|i4|e4m3|e5m2)(?:f16|f32|i32|bf16)_"
)
_MULTIPLIED = {
    "tf32": "tf32",
    "bf16": "bf16",
    "f16": "fp16",
    "f32": "fp32",
    "i8": "int8",
    "i4": "int4",
    "e4m3": "fp8",
    "e5m2": "fp8",
}


def engine_layers(text: str, nodes: Iterable[str]) -> tuple[ExecutedLayer, ...]:
    """The layers of an engine, in execution order, without times.

    Args:
        text: What the inspector tells of the engine, JSON.
        nodes: Names of the artifact's nodes.

    Raises:
        BackendError: If the text is no such JSON.
    """
    try:
        root = json.loads(text, strict=False)
    except json.JSONDecodeError as error:
        raise BackendError(
            f"TensorRT's engine inspector gave no JSON: {error}",
            "measure without --profile, or repeat with another version of the runtime",
        ) from error
    rows = root.get("Layers") if isinstance(root, dict) else None
    if not isinstance(rows, list):
        raise BackendError(
            "TensorRT's engine inspector: expected a list of 'Layers', got none",
            "measure without --profile, or repeat with another version of the runtime",
        )
    known = frozenset(nodes)
    return tuple(_layer(row, known) for row in rows)


def with_times(
    layers: Sequence[ExecutedLayer], runs: Sequence[Sequence[tuple[str, float]]]
) -> tuple[ExecutedLayer, ...]:
    """Add the profiler's times; what it times and the inspector does not list comes last.

    Args:
        layers: From the inspector.
        runs: For each run, (layer's name, milliseconds) in the order reported. A name may stand for several layers:
            they are told apart by order.
    """
    totals: dict[tuple[str, int], float] = defaultdict(float)
    for run in runs:
        seen: Counter[str] = Counter()
        for name, milliseconds in run:
            totals[name, seen[name]] += milliseconds
            seen[name] += 1
    timed, listed = [], Counter[str]()
    for layer in layers:
        key = layer.name, listed[layer.name]
        listed[layer.name] += 1
        timed.append(replace(layer, latency_us=totals.pop(key) * 1e3 / len(runs)) if key in totals else layer)
    rest = [
        ExecutedLayer(name=name, kind="", precision="", nodes=(), detail="", latency_us=total * 1e3 / len(runs))
        for (name, _), total in totals.items()
    ]
    return (*timed, *rest)


def layer_nodes(name: str, metadata: str, known: frozenset[str]) -> tuple[str, ...]:
    """Names of the ONNX nodes in a layer, each once, as told.

    Args:
        name: The layer's.
        metadata: Its ``Metadata``; empty where there is none.
        known: Names of the artifact's nodes; a part of the layer's name counts only if it is one of them.
    """
    told = [found.strip() for found in _ONNX_LAYER.findall(metadata)]
    if not told:
        parts = [part.strip() for part in re.split(r" \+ |\|\||\x1f", name)]
        told = [part for part in (name, *parts) if part in known]
    return tuple(dict.fromkeys(told))


def operator_names(layers: Iterable[ExecutedLayer], op_types: Mapping[str, str]) -> tuple[str, ...]:
    """Kinds of layers with the ONNX operators fused in each, ``CaskConvolution(Conv+Relu)``.

    Args:
        layers: What runs.
        op_types: Node's name → operator type, of the artifact.
    """
    names = []
    for layer in layers:
        fused = "+".join(op_types[node] for node in layer.nodes if node in op_types)
        names.append(f"{layer.kind}({fused})" if fused else layer.kind)
    return tuple(names)


def _layer(row: Any, known: frozenset[str]) -> ExecutedLayer:
    if isinstance(row, str):  # only names are kept, where an engine was built without detailed verbosity
        row = {"Name": row}
    name = str(row.get("Name", ""))
    tactic = str(row.get("TacticName", "") or row.get("TacticValue", ""))
    return ExecutedLayer(
        name=name,
        kind=str(row.get("LayerType", "")),
        precision=_precision(row, tactic),
        nodes=layer_nodes(name, str(row.get("Metadata", "")), known),
        detail=tactic,
        latency_us=None,
    )


def _precision(row: Mapping[str, Any], tactic: str) -> str:
    """Type that a layer multiplies in, by its tactic's name; else the type of what it reads first."""
    if found := _TACTIC.search(f"{tactic}_"):
        return _MULTIPLIED[found[1]]
    for tensor in (*row.get("Inputs", ()), *row.get("Outputs", ())):
        told = tensor.get("DataType") or tensor.get("Datatype") or tensor.get("Format/Datatype") or ""
        if found := _TYPE.search(str(told)):
            return _TYPES[found[1].lower()]
    return ""
