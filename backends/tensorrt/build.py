"""Build of a TensorRT plan from an artifact: parse, fix the batch, configure, build; every failure names its node.

Settings (TensorRT documentation, "Best Practices" and "Advanced Topics"; see also the command line of ``trtexec``):
TF32 is on by default, so a true FP32 baseline clears its flag; tactics are timed 8 times each, for the best of two that
are near must not be drawn by chance; the optimisation level is the default, since level 0 ignores the timing cache;
detailed profiling verbosity keeps the names of the ONNX nodes in the plan and costs no latency. The builder may look at
weights and take sparse kernels where two of four are zero ("Structured Sparsity"); where they are not, the flag does
nothing, so it is always set.

Refused: dynamic axes other than the first, for which there is no telling what sizes to optimise for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from bitfront.backends.tensorrt.cache import TimingCache
from bitfront.backends.tensorrt.messages import build_reason, open_log, parser_reason
from bitfront.backends.tensorrt.package import network_flags
from bitfront.core import BackendError
from bitfront.lowering.dialects.tensorrt_check import check_tensorrt_graph

if TYPE_CHECKING:
    import tensorrt as trt

WORKSPACE_BYTES = 2 << 30
TIMING_ITERATIONS = 8
MOST_SAMPLES = 64
"""Largest batch of an engine whose batch is left open."""


_TOLD_RULES = 3
_LACKING = "operators and types that TensorRT lacks are listed in its ONNX parser's operator matrix"


class FloatMath(Enum):
    """Number format that FP32 layers multiply in."""

    FP32 = "fp32"
    TF32 = "tf32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A built engine.

    Attributes:
        data: TensorRT's own file.
        op_types: Node's name → operator type, of the artifact.
        outputs: Names of the outputs, in the artifact's order.
        dynamic: Inputs with a dynamic batch.
    """

    data: bytes
    op_types: dict[str, str]
    outputs: tuple[str, ...]
    dynamic: frozenset[str]


def build_plan(
    builder: trt.Builder, model: bytes, *, batch_size: int | None, math: FloatMath, timings: TimingCache
) -> Plan:
    """Build a plan from a model.

    Args:
        builder: Where.
        model: The artifact.
        batch_size: What a dynamic batch is fixed to; None leaves it open from 1 to ``MOST_SAMPLES``.
        math: What FP32 layers multiply in.
        timings: Timing cache to use and to add to.

    Raises:
        BackendError: If TensorRT refuses the model.
    """
    import tensorrt as trt

    log, messages = open_log()
    messages.clear()
    proto = _decoded(model)
    op_types = {node.name: node.op_type for node in proto.graph.node if node.name}
    network = builder.create_network(network_flags())
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        raise _refusal(model, parser_reason(parser), broken_rules(proto))
    config = _configured(builder, math)
    dynamic = _profile(builder, network, config, batch_size, model)
    given = timings.attach(config)
    memory = builder.build_serialized_network(network, config)
    if memory is None:
        raise _refusal(model, build_reason(messages.errors(), op_types), broken_rules(proto))
    timings.store(config, given)
    outputs = tuple(value.name for value in proto.graph.output)
    return Plan(data=bytes(memory), op_types=op_types, outputs=outputs, dynamic=dynamic)


def broken_rules(model: onnx.ModelProto) -> str:
    """Rules published for such networks that a model breaks, the first few in words; empty where it keeps them all."""
    try:
        found = check_tensorrt_graph(model)
    except onnx.shape_inference.InferenceError:
        return ""  # TensorRT's own reason will have to do
    told = [f"node '{one.node}': {one.message}" if one.node else one.message for one in found[:_TOLD_RULES]]
    more = f" (and {len(found) - len(told)} more)" if len(found) > len(told) else ""
    return "; ".join(told) + more


def _decoded(model: bytes) -> onnx.ModelProto:
    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise _refusal(model, f"it is not an ONNX file ({error})") from error
    if not proto.graph.output:
        raise _refusal(model, "it has no graph with outputs")
    return proto


def _configured(builder: trt.Builder, math: FloatMath) -> trt.IBuilderConfig:
    import tensorrt as trt

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.avg_timing_iterations = TIMING_ITERATIONS
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if math is FloatMath.TF32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    return config


def _profile(
    builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig, batch: int | None, model: bytes
) -> frozenset[str]:
    """Tell the build what a dynamic batch will be; returns the inputs that have one."""
    shapes = {}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shapes[tensor.name] = tuple(int(size) for size in tensor.shape)
    dynamic = {name: shape for name, shape in shapes.items() if -1 in shape}
    for name, shape in dynamic.items():
        if -1 in shape[1:]:
            axis = shape.index(-1, 1)
            raise BackendError(
                f"TensorRT: input '{name}': axis {axis} is dynamic; only the first, the batch, may be",
                "export the network with a fixed size there",
            )
    if not dynamic:
        return frozenset()
    profile = builder.create_optimization_profile()
    if profile is None:
        raise _refusal(model, "no optimisation profile could be made")
    low, high = (1, MOST_SAMPLES) if batch is None else (batch, batch)
    for name, (_, *rest) in dynamic.items():
        profile.set_shape(name, [low, *rest], [high, *rest], [high, *rest])
    if config.add_optimization_profile(profile) < 0:
        raise _refusal(model, f"no optimisation profile fits a batch of {low} to {high}")
    return frozenset(dynamic)


def _refusal(model: bytes, reason: str, broken: str = "") -> BackendError:
    hint = f"the model breaks rules that TensorRT has for such networks: {broken}" if broken else _LACKING
    return BackendError(f"TensorRT refused a model of {len(model)} bytes: {reason}", hint)
