"""A network of numbers: five layers whose schemes have known sizes, latencies and harm, and a runtime that obeys.

Nothing is an ONNX model here, so a whole run takes a second. An artifact is the schemes as JSON, filled up to its size.
Sample d, drawn from [0, 1), is classified correctly where d exceeds the summed harm of all schemes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

from bitfront.backends.base import Capabilities, CompiledModel, DeviceFingerprint
from bitfront.backends.fake import SimulatedClock
from bitfront.backends.host import HostBackend, HostModel
from bitfront.core import (
    FP16,
    FP32,
    Array,
    Artifact,
    BackendError,
    CalibrationSettings,
    ContentStore,
    Inputs,
    Labelled,
    LoweringError,
    Metric,
    MetricFunction,
    PrecisionConfig,
    Scheme,
    top1,
)
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.dialect import Dialect, support_of
from bitfront.lowering.dialects.ort_cpu import OrtCpuDialect
from bitfront.lowering.layers import Layer, PrecisionGroup, QuantisableLayers
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.reference import ReferenceModel
from tests.references import INTERPRETER

LAYERS = ("a", "b", "c", "d", "e")
INT8, INT4 = Scheme.parse("int8:nearest"), Scheme.parse("int4:nearest")
SCHEMES = (FP32, FP16, INT8, INT4)
OVERHEAD_BYTES = 500
FP32_BYTES = 1000
BOUNDARY_MS = 0.3
COST_MS = {"given": 0.8, "fp32": 1.0, "fp16": 1.0, "int8:nearest": 0.4, "int4:nearest": 0.4}
HARM = {"given": 0.0, "fp32": 0.0, "fp16": 0.0, "int8:nearest": 0.002, "int4:nearest": 0.03}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyWorkload:
    """Satisfies ``Workload``."""

    name: str = "toy"
    model: Path = Path("toy.onnx")
    calibration: Inputs
    evaluation: Labelled
    metric: Metric | MetricFunction = top1


def workload(samples: int = 600, metric: Metric | MetricFunction = top1, seed: int = 3) -> ToyWorkload:
    """Samples of even difficulty, all of class 0."""
    rng = np.random.default_rng(seed)
    return ToyWorkload(
        calibration={"x": rng.random((32, 1)).astype(np.float32)},
        evaluation=Labelled(
            inputs={"x": rng.random((samples, 1)).astype(np.float32)}, labels=np.zeros(samples, dtype=np.int64)
        ),
        metric=metric,
    )


def harm(schemes: Mapping[str, str]) -> float:
    """How much of the samples these schemes get wrong; later layers suffer more."""
    return sum(HARM[text] * (1 + LAYERS.index(layer)) / 3 for layer, text in schemes.items())


def latency_ms(schemes: Mapping[str, str], cost_ms: Mapping[str, float] = COST_MS) -> float:
    """What one sample takes; FP16 is a domain of its own where it costs less than FP32."""
    texts = [schemes[layer] for layer in LAYERS]
    half = "half" if cost_ms["fp16"] < cost_ms["fp32"] else "float"
    domains = [{"fp32": "float", "fp16": half}.get(text, "integer") for text in texts]
    crossed = sum(left != right for left, right in itertools.pairwise(domains))
    return sum(cost_ms[text] for text in texts) + BOUNDARY_MS * crossed


def file(text: str = "given", size_bytes: int = OVERHEAD_BYTES + 4 * FP32_BYTES) -> bytes:
    """A file as given: a fifth smaller and faster than what FP32 is written as, unless told otherwise."""
    return json.dumps(dict.fromkeys(LAYERS, text)).encode().ljust(size_bytes)


class ToyDialect(OrtCpuDialect):
    """ONNX Runtime's, with the toy's own scheme of 4 bits."""

    schemes = (
        *OrtCpuDialect.schemes,
        replace(support_of(OrtCpuDialect(), INT8), scheme=INT4),
    )


class Fp16Dialect(ToyDialect):
    """Of a runtime with 16-bit arithmetic."""

    schemes = tuple(
        replace(support, compute_type=ComputeType.FP16) if support.scheme == FP16 else support
        for support in ToyDialect.schemes
    )


ORT_CPU = ToyDialect()


@dataclass(frozen=True, slots=True, kw_only=True)
class _ToyReference(ReferenceModel):
    """A reference model whose given file is no ONNX."""

    file: bytes | None

    @property
    def given_artifact(self) -> Artifact | None:
        """The file as it was given."""
        return None if self.file is None else Artifact.onnx(self.file)


class ToyLowerer(Lowerer):
    """Writes schemes as JSON.

    Args:
        refuse: Says why schemes cannot be written; empty text writes them.
        dialect: What is asked about schemes.
        given: The file as it was given; None where there is none but what FP32 is written as.
    """

    def __init__(
        self,
        refuse: Callable[[Mapping[str, Scheme]], str] = lambda _: "",
        dialect: Dialect = ORT_CPU,
        given: bytes | None = None,
    ) -> None:
        reference = _ToyReference(
            source="toy.onnx",
            proto=onnx.ModelProto(graph=onnx.GraphProto(output=[onnx.ValueInfoProto(name="y")])),
            fingerprint="f" * 8,
            architecture="a" * 8,
            input_shapes={"x": (None, 1)},
            input_types={"x": "float32"},
            output_names=("y",),
            output_shapes={"y": (None, 2)},
            interpreter=INTERPRETER,
            file=given,
        )
        super().__init__(reference, dialect, None, CalibrationSettings(), ContentStore(None))
        self._refuse = refuse
        self.lowered = 0
        layers = tuple(
            Layer(
                name=name, node=name, op="Gemm", weight=f"{name}.weight", weight_shape=(10, 25), channel_axis=1,
                conv_groups=1, parameters=250, schemes=SCHEMES, refused={},
            )
            for name in LAYERS
        )  # fmt: skip
        groups = tuple(PrecisionGroup(name=name, layers=(name,), reason="", schemes=SCHEMES) for name in LAYERS)
        edges = tuple((i, i + 1) for i in range(len(LAYERS) - 1))
        # Shadows the cached property: this network has no graph to collect layers of.
        self.__dict__["quantisable"] = QuantisableLayers(layers=layers, groups=groups, edges=edges, left_alone={})

    def prepare(self, schemes: Iterable[Scheme]) -> None:
        """Nothing to round."""

    def lower(self, schemes: Mapping[str, Scheme]) -> Artifact:
        """The schemes, filled up to the artifact's size."""
        self.lowered += 1
        if reason := self._refuse(schemes):
            raise LoweringError(reason)
        text = json.dumps({layer: scheme.text for layer, scheme in schemes.items()}).encode()
        size = OVERHEAD_BYTES + sum(self.weight_bytes(layer, scheme) for layer, scheme in schemes.items())
        return Artifact.onnx(text.ljust(size))

    def weight_bytes(self, layer: str, scheme: Scheme) -> int:
        """In proportion to the bits."""
        del layer
        return FP32_BYTES * scheme.precision.bits // 32

    def config(self, schemes: Mapping[str, Scheme]) -> PrecisionConfig:
        """The schemes and nothing calibrated."""
        return PrecisionConfig(
            model=self.reference.fingerprint, architecture=self.reference.architecture, dialect="ort-cpu",
            calibration=self.settings, calibration_data="", ranges={}, layers=schemes,
        )  # fmt: skip


@dataclass(slots=True, kw_only=True)
class ToyModel(HostModel):
    """Obeys the table above."""

    schemes: Mapping[str, str]
    backend: ToyBackend
    input_shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=lambda: {"x": (None, 1)})
    output_names: tuple[str, ...] = ("y",)

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """Logits (n, 2)."""
        self.backend.runs += 1
        self.backend.on_run(self.backend.runs)
        margin = 8 * (inputs["x"][:, 0].astype(np.float64) - harm(self.schemes))
        self.backend.simulated.advance(latency_ms(self.schemes, self.backend.cost_ms) * len(margin))
        return (np.stack([margin, np.zeros_like(margin)], axis=1).astype(np.float32),)

    def operators(self) -> tuple[str, ...]:
        """None to speak of."""
        return ()


class ToyBackend(HostBackend):
    """Runs artifacts of ``ToyLowerer`` in simulated time.

    Args:
        refuse: Says why schemes (texts) do not compile; empty text compiles them.
        on_run: Called with the number of each run.
        cost_ms: What a layer takes, by its scheme.
    """

    name = "fake"
    dialect = "ort-cpu"

    def __init__(
        self,
        refuse: Callable[[Mapping[str, str]], str] = lambda _: "",
        on_run: Callable[[int], None] = lambda _: None,
        cost_ms: Mapping[str, float] = COST_MS,
    ) -> None:
        self.cost_ms = cost_ms
        self.simulated = SimulatedClock()
        self.refuse = refuse
        self.on_run = on_run
        self.compiled = 0
        self.runs = 0

    @property
    def clock(self) -> Callable[[], int]:
        """Simulated time."""
        return self.simulated

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
        """Read the schemes back."""
        del threads, batch_size
        self.compiled += 1
        schemes = json.loads(artifact.data)
        if reason := self.refuse(schemes):
            raise BackendError(reason)
        return ToyModel(schemes=schemes, backend=self)

    def fingerprint(self) -> DeviceFingerprint:
        """One and the same."""
        return DeviceFingerprint(
            device="toy", cores=1, instructions=(), system="toy", runtime="toy 1", python="any"
        )  # fmt: skip

    def capabilities(self) -> Capabilities:
        """None probed."""
        return Capabilities(supported={}, notes={})
