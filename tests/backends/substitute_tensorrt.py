"""A stand-in for ``tensorrt``: engines compute on the processor, and whatever is asked of it can be looked at."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError

from bitfront.backends.ort.cpu import open_session
from tests.backends.substitute_cuda import FakeCuda

_TYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int64)": "INT64", "tensor(double)": "DOUBLE"}


@dataclass
class Control:
    """What a test looks at, and how it makes TensorRT fail.

    Attributes:
        cuda: The device.
        version: TensorRT's.
        starts: Whether a builder can be made.
        parser_errors: (node, operator, description); any makes the parser refuse.
        build_errors: What the logger gets before a build gives None.
        inspector: What engine inspectors tell instead.
        runs: Whether runs succeed.
        configs: Configurations of all builds.
        networks: Flags that networks were made with.
        loads: Number of plans put on the device.
        log: The logger that was made last.
    """

    cuda: FakeCuda = field(default_factory=FakeCuda)
    version: str = "11.4.0.106"
    starts: bool = True
    parser_errors: list[tuple[str, str, str]] = field(default_factory=list)
    build_errors: list[str] = field(default_factory=list)
    inspector: str = ""
    runs: bool = True
    configs: list[FakeConfig] = field(default_factory=list)
    networks: list[int] = field(default_factory=list)
    loads: int = 0
    log: Any = None


class FakeCache:
    """TensorRT's timing cache as a set of letters; damaged bytes are refused, and ``!`` stands for another device."""

    def __init__(self, data: bytes) -> None:
        self.entries = set(data.decode("ascii", "replace"))

    def serialize(self) -> bytes:
        return "".join(sorted(self.entries)).encode()

    def combine(self, other: FakeCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if "!" in self.entries | other.entries:
            return False
        self.entries |= other.entries
        return True


class FakeConfig:
    """A builder's configuration: TF32 is on by default, as TensorRT has it."""

    def __init__(self) -> None:
        self.cache: FakeCache | None = None
        self.flags = {"TF32"}
        self.pools: dict[str, int] = {}
        self.profiles: list[dict[str, Any]] = []
        self.avg_timing_iterations = 1
        self.profiling_verbosity = "LAYER_NAMES_ONLY"

    def create_timing_cache(self, data: bytes) -> FakeCache | None:
        return None if data.startswith(b"\xff") else FakeCache(data)

    def set_timing_cache(self, cache: FakeCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if "!" in cache.entries:  # of another device
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> FakeCache | None:
        return self.cache

    def tune(self, found: str) -> None:
        assert self.cache is not None
        self.cache.entries |= set(found)

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pools[pool] = size

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, low: list[int], best: list[int], high: list[int]) -> None:
        self.shapes[name] = (low, best, high)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.profiler: Any = None
        self._engine, self._addresses = engine, dict[str, int]()
        self._shapes: dict[str, tuple[int, ...]] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if name in self._engine.profile:
            low, _, high = self._engine.profile[name]
            if not low[0] <= shape[0] <= high[0]:
                return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        zeros = {
            value.name: np.zeros(self._shapes[value.name], np.float32) for value in self._engine.session.get_inputs()
        }
        return tuple(self._engine.session.run([name], zeros)[0].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream, "the default stream"
        if self._engine.control.runs:
            self._engine.control.cuda.launch(self._compute)
        else:
            self._engine.control.log.log(SimpleNamespace(name="ERROR"), "[E] Error Code 1: Cuda Runtime (no memory)")
        return self._engine.control.runs

    def _compute(self) -> None:
        session, buffers = self._engine.session, self._engine.control.cuda.buffers
        inputs = {value.name: buffers[self._addresses[value.name]] for value in session.get_inputs()}
        for value, result in zip(session.get_outputs(), session.run(None, inputs), strict=True):
            np.copyto(buffers[self._addresses[value.name]], result)
        if self.profiler is not None:
            for layer in self._engine.layers():
                self.profiler.report_layer_time(layer["Name"], 0.5)


class _Engine:
    """An engine of one layer a node."""

    device_memory_size_v2 = 4096

    def __init__(self, plan: bytes, control: Control) -> None:
        header, model = plan.split(b"\n", 1)
        self.profile, self.model, self.control = json.loads(header), onnx.load_model_from_string(model), control
        self.session = open_session(model, threads=1, left_out=("WeightBiasQuantization",))
        self._values = [*self.session.get_inputs(), *reversed(self.session.get_outputs())]
        self.num_io_tensors = len(self._values)

    def get_tensor_name(self, index: int) -> str:
        return str(self._values[index].name)

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name in {value.name for value in self.session.get_inputs()} else "OUTPUT"

    def get_tensor_shape(self, name: str) -> list[int]:
        return [size if isinstance(size, int) else -1 for size in self._value(name).shape]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=_TYPES[self._value(name).type])

    def get_engine_stat(self, stat: str) -> int:
        return {"TOTAL_WEIGHTS_SIZE": 123}[stat]

    def create_execution_context(self) -> _Context:
        return _Context(self)

    def create_engine_inspector(self) -> Any:
        text = self.control.inspector or json.dumps({"Layers": self.layers()})
        return SimpleNamespace(execution_context=None, get_engine_information=lambda kind: text if kind else "")

    def layers(self) -> list[dict[str, Any]]:
        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.input)}
        integers = {node.output[0] for node in inferred.node if node.op_type == "QuantizeLinear"}
        quantised = {node.output[0] for node in inferred.node if node.input and node.input[0] in integers}
        rows = []
        for node in inferred.node:
            name = node.name or f"node_of_{node.output[0]}"
            source = node.input[0] if node.input else ""
            told = "Int8" if source in quantised else {10: "Half"}.get(types.get(source, 1), "Float")
            rows.append(
                {
                    "Name": name,
                    "LayerType": node.op_type,
                    "Inputs": [{"Name": source, "Format/Datatype": told}],
                    "Metadata": f"[ONNX Layer: {name}]",
                }
            )
        return rows

    def _value(self, name: str) -> Any:
        return next(value for value in self._values if value.name == name)


def substitute(control: Control) -> ModuleType:
    """A module that looks like ``tensorrt`` as far as the backend uses it."""
    trt = ModuleType("tensorrt")

    class ILogger:
        Severity = Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO"])

        def __init__(self) -> None:
            control.log = self

        def log(self, severity: Any, msg: str) -> None:
            raise NotImplementedError

    class Builder:
        def __init__(self, log: Any) -> None:
            if not control.starts:
                log.log(SimpleNamespace(name="ERROR"), "[E] CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags: int) -> Any:
            control.networks.append(flags)
            return SimpleNamespace(num_inputs=0, model=b"")

        def create_builder_config(self) -> FakeConfig:
            control.configs.append(FakeConfig())
            return control.configs[-1]

        def create_optimization_profile(self) -> _Profile:
            return _Profile()

        def build_serialized_network(self, network: Any, config: FakeConfig) -> bytes | None:
            if control.build_errors:
                for text in control.build_errors:
                    control.log.log(SimpleNamespace(name="ERROR"), text)
                return None
            config.tune("t")
            return json.dumps(config.profiles[0] if config.profiles else {}).encode() + b"\n" + bytes(network.model)

    class OnnxParser:
        def __init__(self, network: Any, log: Any) -> None:  # noqa: ARG002
            self._network, self._errors = network, list(control.parser_errors)
            self.num_errors = 0

        def parse(self, model: bytes) -> bool:
            try:
                graph = onnx.load_model_from_string(model).graph
            except DecodeError:  # the backend looks first
                raise AssertionError("garbage reached the parser") from None
            inputs = [
                SimpleNamespace(
                    name=value.name, shape=[axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim]
                )
                for value in graph.input
            ]
            self._network.model, self._network.num_inputs = model, len(inputs)
            self._network.get_input = inputs.__getitem__
            self.num_errors = len(self._errors)
            return not self._errors

        def get_error(self, index: int) -> Any:
            name, operator, text = self._errors[index]
            return SimpleNamespace(node_name=lambda: name, node_operator=lambda: operator, desc=lambda: text)

    class Runtime:
        def __init__(self, log: Any) -> None:
            pass

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            control.loads += 1
            return _Engine(plan, control)

    class IProfiler:
        def report_layer_time(self, layer_name: str, ms: float) -> None:
            raise NotImplementedError

    members: dict[str, Any] = {
        "__version__": control.version,
        "ILogger": ILogger,
        "Builder": Builder,
        "OnnxParser": OnnxParser,
        "Runtime": Runtime,
        "IProfiler": IProfiler,
        "NetworkDefinitionCreationFlag": SimpleNamespace(STRONGLY_TYPED=1),
        "MemoryPoolType": SimpleNamespace(WORKSPACE="WORKSPACE"),
        "ProfilingVerbosity": SimpleNamespace(DETAILED="DETAILED"),
        "BuilderFlag": SimpleNamespace(TF32="TF32", SPARSE_WEIGHTS="SPARSE_WEIGHTS"),
        "TensorIOMode": SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT"),
        "EngineStat": SimpleNamespace(TOTAL_WEIGHTS_SIZE="TOTAL_WEIGHTS_SIZE"),
        "LayerInformationFormat": SimpleNamespace(JSON="JSON"),
        "init_libnvinfer_plugins": lambda *_: True,
    }
    for name, member in members.items():
        setattr(trt, name, member)
    return trt


def install(patch: pytest.MonkeyPatch, control: Control) -> None:
    """Make ``import tensorrt`` give the stand-in."""
    patch.setitem(sys.modules, "tensorrt", substitute(control))
