"""A network compiled by OpenVINO: one request, run synchronously by the calling thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from io import BytesIO
from math import prod
from typing import Any

import numpy as np

from bitfront.backends.base import Clock, ExecutedLayer, MemoryUsage, Timer
from bitfront.backends.host import HostModel, host_timer
from bitfront.backends.inputs import InputSpec, wrong_input
from bitfront.backends.openvino.package import OPENVINO_ERRORS, load_openvino, reason
from bitfront.core import Array, BackendError, Inputs

_PROFILED_RUNS = 20
# Operators of the runtime model that stand for the network's edges and weights, not for work.
_SILENT = frozenset(("Const", "Input", "Output"))


class OpenVinoModel(HostModel):
    """A compiled model.

    Args:
        compiled: The runtime's compiled model.
        profiled: Compiles the same model once more with performance counters.
        output_names: Of the artifact, in its order.
        nodes: Names of the artifact's nodes.
        name: The backend's name, for messages.
    """

    def __init__(
        self,
        compiled: Any,
        profiled: Callable[[], Any],
        output_names: tuple[str, ...],
        nodes: frozenset[str],
        name: str,
    ) -> None:
        self._compiled = compiled
        self._profiled = profiled
        self._output_names = output_names
        self._nodes = nodes
        self._name = name
        self._request = compiled.create_infer_request()

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the model's order."""
        return self._output_names

    @cached_property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Input name → shape; None for a dynamic axis."""
        return {name: spec.shape for name, spec in self._inputs.items()}

    @cached_property
    def _inputs(self) -> Mapping[str, InputSpec]:
        return {
            port.get_any_name(): InputSpec(
                shape=tuple(axis.get_length() if axis.is_static else None for axis in port.get_partial_shape()),
                dtype=port.get_element_type().to_dtype().name,
            )
            for port in self._compiled.inputs
        }

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """The outputs of one synchronous run, as copies.

        Raises:
            BackendError: If an input's name, type or shape is wrong, or the runtime fails.
        """
        self._check(inputs)
        try:
            # Without a copy of the inputs: the run is over when the call returns.
            found = self._request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        except OPENVINO_ERRORS as error:
            raise BackendError(
                f"{self._name}: running the model failed: {reason(error)}",
                "check the model with 'search measure' on ort-cpu; leave the precision out that this runtime fails on",
            ) from error
        return tuple(np.asarray(found[index]) for index in range(len(self._output_names)))

    def timer(self, inputs: Inputs, clock: Clock) -> Timer:
        """A timer whose runs read tensors that are handed over once, and leave the outputs in the runtime's own.

        Raises:
            BackendError: If an input's name, type or shape is wrong.
        """
        self._check(inputs)
        openvino = load_openvino()
        request = self._compiled.create_infer_request()
        # The tensors read these arrays in place, so they live as long as the timer does.
        arrays = {name: np.asarray(array, order="C") for name, array in inputs.items()}
        for name, array in arrays.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

        def run() -> None:
            assert arrays
            request.infer(share_outputs=True)

        return host_timer(run, clock)

    def operators(self) -> tuple[str, ...]:
        """Operator and precision, ``Convolution(u8)`` for example, in execution order."""
        return tuple(f"{layer.kind}({layer.precision})" for layer in executed(self._compiled, self._nodes))

    def profile(self, inputs: Inputs) -> tuple[ExecutedLayer, ...]:
        """Each operator with its precision, kernel and mean time.

        Raises:
            BackendError: If an input's name, type or shape is wrong, or the runtime fails.
        """
        self._check(inputs)
        try:
            compiled = self._profiled()
            request = compiled.create_infer_request()
            for _ in range(_PROFILED_RUNS):
                request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        except OPENVINO_ERRORS as error:
            raise BackendError(
                f"{self._name}: profiling the model failed: {reason(error)}",
                "measure without --profile, or repeat with another version of the runtime",
            ) from error
        return executed(compiled, self._nodes)

    def memory_usage(self) -> MemoryUsage:
        """The exported model's size, and the constants of the runtime model: what it unfolds counts unfolded."""
        engine = self.engine()
        constants = [
            operator.output(0)
            for operator in self._compiled.get_runtime_model().get_ordered_ops()
            if told(operator, "layerType") == "Const" and not operator.get_output_element_type(0).is_dynamic()
        ]
        return MemoryUsage(
            engine_bytes=None if engine is None else len(engine),
            weight_bytes=sum(
                (prod(port.get_shape()) * port.get_element_type().bitwidth + 7) // 8 for port in constants
            ),
        )

    def engine(self) -> bytes | None:
        """The runtime's exported form of the compiled model."""
        stream = self._compiled.export_model()
        return stream.getvalue() if isinstance(stream, BytesIO) else bytes(stream)

    def _check(self, inputs: Inputs) -> None:
        # The bindings would convert other types silently, and take other shapes of dynamic models.
        wrong = wrong_input(self._inputs, inputs)
        if wrong:
            raise BackendError(
                f"{self._name}: {wrong}", "give one array per input of the network, in its type and shape"
            )


def executed(compiled: Any, nodes: frozenset[str]) -> tuple[ExecutedLayer, ...]:
    """The operators of a compiled model's runtime model that run, in execution order.

    Args:
        compiled: The runtime's compiled model.
        nodes: Names of the artifact's nodes.
    """
    layers = []
    constant = set()
    for operator in compiled.get_runtime_model().get_ordered_ops():
        kind = told(operator, "layerType")
        sources = [
            operator.input_value(index).get_node().get_friendly_name() for index in range(operator.get_input_size())
        ]
        if kind == "Const" or (sources and all(source in constant for source in sources)):
            constant.add(operator.get_friendly_name())
            continue
        if kind in _SILENT:
            continue
        microseconds = told(operator, "execTimeMcs")
        names = [name.removesuffix("/WithoutBiases") for name in told(operator, "originalLayersNames").split(",")]
        layers.append(
            ExecutedLayer(
                name=operator.get_friendly_name(),
                kind=kind,
                precision=told(operator, "runtimePrecision"),
                nodes=tuple(dict.fromkeys(name for name in names if name in nodes)),
                detail=told(operator, "primitiveType"),
                latency_us=float(microseconds) if microseconds.isdigit() else None,
            )
        )
    return tuple(layers)


def told(operator: Any, key: str) -> str:
    """A field of an operator in the runtime model, as text; empty where it has none."""
    information = operator.get_rt_info()
    return str(information[key].astype(str)) if key in information else ""
