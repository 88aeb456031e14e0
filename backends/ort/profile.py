"""Reading the file ONNX Runtime's profiler writes: one event a node and run, in the trace-event format of Chrome.

Refused are files that hold no list of events; events of other kinds (the session's own, threads) are passed over, and
so are nodes in the bodies of If, Loop and Scan that did not run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bitfront.backends.base import ExecutedLayer
from bitfront.core import BackendError

_SUFFIX = "_kernel_time"
# As the profiler names element types → as this project names precisions.
_PRECISIONS = {
    "float": "fp32",
    "float16": "fp16",
    "double": "fp64",
    "int8": "int8",
    "uint8": "int8",
    "bfloat16": "bf16",
}


@dataclass(slots=True)
class _Seen:
    """Types, providers and times that the events of one node tell together."""

    kind: str
    provider: str
    types: tuple[str, ...]
    durations_us: list[float] = field(default_factory=list)


def parse_profile(text: str, *, skipped_runs: int) -> tuple[ExecutedLayer, ...]:
    """Read a profile.

    Args:
        text: The file.
        skipped_runs: How many first runs of each node do not count (kernels are tuned in them).

    Raises:
        BackendError: If it is no such file.
    """
    try:
        events = json.loads(text)
    except ValueError as error:
        raise BackendError(
            f"ONNX Runtime's profile cannot be read: {error}",
            "measure without --profile, or repeat with another version of the runtime",
        ) from error
    if not isinstance(events, list):
        raise BackendError(
            f"ONNX Runtime's profile: expected a list of events, got {type(events).__name__}",
            "measure without --profile, or repeat with another version of the runtime",
        )
    seen: dict[str, _Seen] = {}
    for event in events:
        args = event.get("args", {})
        if event.get("cat") != "Node" or not str(event.get("name", "")).endswith(_SUFFIX) or "op_name" not in args:
            continue
        name = str(event["name"]).removesuffix(_SUFFIX)
        entry = seen.setdefault(name, _Seen(str(args["op_name"]), str(args.get("provider", "")), _types(args)))
        entry.durations_us.append(float(event.get("dur", 0)))
    return tuple(_layer(name, entry, skipped_runs) for name, entry in seen.items())


def nodes_by_provider(layers: Iterable[ExecutedLayer]) -> dict[str, int]:
    """Execution provider → how many nodes ran on it, most first."""
    return dict(Counter(layer.detail for layer in layers).most_common())


def _layer(name: str, entry: _Seen, skipped_runs: int) -> ExecutedLayer:
    counting = entry.durations_us[skipped_runs:] or entry.durations_us
    return ExecutedLayer(
        name=name,
        kind=entry.kind,
        precision=_precision(entry.types),
        nodes=(name,),
        detail=entry.provider,
        latency_us=sum(counting) / len(counting),
    )


def _types(args: Mapping[str, Any]) -> tuple[str, ...]:
    """Element types of a node's inputs; each is written as an object of one key, the type."""
    shapes = args.get("input_type_shape", [])
    return tuple(str(kind) for shape in shapes if isinstance(shape, dict) for kind in shape)


def _precision(types: tuple[str, ...]) -> str:
    """Type that a node computes in: that of its first operand of a known type."""
    return next((_PRECISIONS[kind] for kind in types if kind in _PRECISIONS), "")
