"""Reading ONNX Runtime's profiles."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bitfront.backends import OrtCpuBackend
from bitfront.backends.base import ExecutedLayer
from bitfront.backends.ort.profile import nodes_by_provider, parse_profile
from bitfront.core import Artifact, BackendError
from tests.backends import models


def event(name: str, dur: int, provider: str = "CUDAExecutionProvider", kind: str = "float16") -> dict[str, Any]:
    args = {"op_name": "Conv", "provider": provider, "input_type_shape": [{kind: [1, 2]}, {"float": [2]}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": args}


def test_runs_are_averaged_without_the_first() -> None:
    """Tuning in the first run does not count; precision is the first operand's, other events are passed over."""
    session = {"cat": "Session", "name": "model_run", "dur": 9000, "args": {}}
    fence = {"cat": "Node", "name": "a_fence_before", "dur": 5, "args": {"op_name": "Conv"}}
    events = [
        session,
        event("a", 1000),
        fence,
        event("a", 10),
        event("a", 20),
        event("b", 7, "CPUExecutionProvider", "int64"),
    ]
    first, second = parse_profile(json.dumps(events), skipped_runs=1)
    assert first == ExecutedLayer(
        name="a", kind="Conv", precision="fp16", nodes=("a",), detail="CUDAExecutionProvider", latency_us=15.0
    )
    assert (second.precision, second.latency_us) == ("fp32", 7.0)
    assert nodes_by_provider([first, second, first]) == {"CUDAExecutionProvider": 2, "CPUExecutionProvider": 1}


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot be read"), ('{"a": 1}', "expected a list of events, got dict")]
)
def test_other_files_are_refused(text: str, message: str) -> None:
    """What is no profile is a typed error."""
    with pytest.raises(BackendError, match=message):
        parse_profile(text, skipped_runs=0)


def test_a_real_profile_is_read() -> None:
    """Every operator left after optimisation shows, with a time, in the order they ran."""
    compiled = OrtCpuBackend().compile(Artifact.onnx(models.convolution(3)), threads=1)
    layers = compiled.profile({"x": np.ones((1, 2, 4, 4), np.float32)})
    assert [layer.kind for layer in layers if "Conv" in layer.kind] == ["Conv"] * 3
    assert all(layer.latency_us is not None and layer.detail == "CPUExecutionProvider" for layer in layers)
    with pytest.raises(BackendError, match="input 'x': expected type float32"):
        compiled.profile({"x": np.ones((1, 2, 4, 4))})
