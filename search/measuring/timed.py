"""Wrappers that clock the work of a backend, a lowerer and a sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from bitfront.backends.base import Backend, Capabilities, Clock, CompiledModel, DeviceFingerprint
from bitfront.backends.host import HostModel
from bitfront.core import Array, Artifact, Inputs, Precision, Scheme
from bitfront.lowering.layers import QuantisableLayers
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.parts import NetworkPart
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.measuring.stopwatch import Kind, Stopwatch


class TimedModel(HostModel):
    """A compiled model whose runs are clocked, for results alone; never used for timing, for a clock costs time."""

    def __init__(self, inner: CompiledModel, watch: Stopwatch) -> None:
        self._inner = inner
        self._watch = watch

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """The inner model's input shapes."""
        return self._inner.input_shapes

    @property
    def output_names(self) -> tuple[str, ...]:
        """The inner model's output names."""
        return self._inner.output_names

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """Run the inner model."""
        with self._watch.timed(Kind.INFERENCE):
            return self._inner.run(inputs)

    def operators(self) -> tuple[str, ...]:
        """The inner model's operators."""
        return self._inner.operators()


class TimedBackend:
    """A backend whose work is clocked."""

    def __init__(self, inner: Backend, watch: Stopwatch) -> None:
        self._inner = inner
        self._watch = watch

    @property
    def name(self) -> str:
        """The inner backend's name."""
        return self._inner.name

    @property
    def dialect(self) -> str:
        """The inner backend's dialect."""
        return self._inner.dialect

    @property
    def clock(self) -> Clock:
        """The inner backend's clock."""
        return self._inner.clock

    @property
    def processor_clock(self) -> Clock | None:
        """The inner backend's clock of processor time."""
        return self._inner.processor_clock

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
        """Compile on the inner backend."""
        with self._watch.timed(Kind.COMPILATION):
            compiled = self._inner.compile(artifact, threads=threads, batch_size=batch_size)
        return TimedModel(compiled, self._watch)

    def fingerprint(self) -> DeviceFingerprint:
        """The inner backend's fingerprint."""
        return self._inner.fingerprint()

    def capabilities(self) -> Capabilities:
        """The inner backend's capabilities."""
        return self._inner.capabilities()

    def unprofitable_precisions(self) -> Mapping[Precision, str]:
        """The inner backend's unprofitable precisions."""
        return self._inner.unprofitable_precisions()

    def proxy_backend(self) -> Backend:
        """The inner backend's proxy backend, clocked."""
        return TimedBackend(self._inner.proxy_backend(), self._watch)


class TimedLowerer:
    """A lowerer whose work is clocked."""

    def __init__(self, inner: Lowerer, watch: Stopwatch) -> None:
        self._inner = inner
        self._watch = watch

    @property
    def quantisable(self) -> QuantisableLayers:
        """The inner lowerer's quantisable layers."""
        return self._inner.quantisable

    @property
    def reference(self) -> ReferenceModel:
        """The inner lowerer's network."""
        return self._inner.reference

    @property
    def parts(self) -> Mapping[str, NetworkPart]:
        """The inner lowerer's parts."""
        return self._inner.parts

    def lower(self, schemes: Mapping[str, Scheme]) -> Artifact:
        """Lower with the inner lowerer."""
        with self._watch.timed(Kind.LOWERING):
            return self._inner.lower(schemes)

    def lower_part(self, part: NetworkPart, scheme: Scheme) -> Artifact:
        """Lower a part with the inner lowerer."""
        with self._watch.timed(Kind.LOWERING):
            return self._inner.lower_part(part, scheme)


class TimedSampler(BaseSampler):
    """A sampler whose proposals are clocked as the solver's work."""

    def __init__(self, inner: BaseSampler, watch: Stopwatch) -> None:
        self._inner = inner
        self._watch = watch

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The inner sampler's relative search space."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Sample with the inner sampler."""
        with self._watch.timed(Kind.SOLVER):
            return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample with the inner sampler."""
        with self._watch.timed(Kind.SOLVER):
            return self._inner.sample_independent(study, trial, param_name, param_distribution)
