"""The model runner: writes candidates, compiles them, times them beside the given network, and clocks that work."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from bitfront.backends.base import Backend, CompiledModel
from bitfront.backends.timing import TimingSettings, time_paired
from bitfront.core import FP32, Artifact, Inputs, LatencyStats, LoweringError, PrecisionConfig, Scheme
from bitfront.core.given_network import GIVEN_ID
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.measuring.measurement_cache import MeasurementCache
from bitfront.search.measuring.stopwatch import Kind, Stopwatch
from bitfront.search.measuring.timed import TimedModel
from bitfront.search.trial import Candidate

if TYPE_CHECKING:
    from bitfront.search.variants.pipeline import Variant

QUICK = TimingSettings(
    slot_ms=5.0, warmup_runs=2, min_rounds=6, max_rounds=24, max_seconds_per_model=0.15, target=0.015
)
_REMEMBERED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRunner:
    """Writes, compiles and times candidates.

    A frozen bundle of everything that trying a candidate needs.

    Attributes:
        lowerer: Writes the given network.
        backend: Compiles and runs them.
        inputs: One batch, what every timed run gets.
        threads, batch_size: As timed.
        cores: What scoring may use.
        measurements: Remembers.
        watch: Clocks.
        variants: Model variants that passes made of the given network, by id.
        undisturbed_ms: Latest latencies of the given network; the fastest is that of an undisturbed machine.
        scoring: Models compiled for scoring that are in use, by their artifacts' digests.
    """

    lowerer: Lowerer
    backend: Backend
    inputs: Inputs
    threads: int
    batch_size: int
    cores: int
    measurements: MeasurementCache
    watch: Stopwatch
    variants: Mapping[str, Variant] = field(default_factory=dict)
    undisturbed_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    scoring: WeakValueDictionary[str, CompiledModel] = field(default_factory=WeakValueDictionary)

    def writer(self, variant: str) -> Lowerer:
        """Lowerer of a variant by its id; of the given network for an empty one."""
        return self.variants[variant].lowerer if variant else self.lowerer

    def layers(self, candidate: Candidate) -> dict[str, Scheme]:
        """Layer name → scheme, every layer of the candidate's network.

        Where pruning has left a layer that may not take its scheme, it takes the nearest that it may.

        Raises:
            LoweringError: If its network could not be made.
        """
        if candidate.pruning and not candidate.variant:
            raise LoweringError(
                f"candidate of {candidate.origin}: no network could be made for its pruning",
                "the search goes on without it",
            )
        writer = self.writer(candidate.variant)
        if candidate.architecture or not candidate.variant:
            return writer.quantisable.spread(candidate.schemes)
        wanted = self.lowerer.quantisable.spread(candidate.schemes)
        return {layer.name: nearest(wanted[layer.name], layer.schemes) for layer in writer.quantisable.layers}

    def lower(self, layers: Mapping[str, Scheme], variant: str = "") -> Artifact:
        """Write a network, the given one by default, with a scheme for each layer."""
        with self.watch.timed(Kind.LOWERING):
            return self.writer(variant).lower(layers)

    def config(self, layers: Mapping[str, Scheme], variant: str = "") -> PrecisionConfig:
        """The reusable config of a network's layers; of a variant it names the given one and the recipe."""
        config = self.writer(variant).config(layers)
        if not variant:
            return config
        given = self.lowerer.reference
        recipe = self.variants[variant].recipe
        return replace(
            config,
            model=given.fingerprint,
            architecture=given.architecture,
            skipped_steps=given.skipped_steps,
            applied_steps=given.applied_steps,
            fixed_inputs=given.fixed_inputs,
            recipe=recipe,
        )

    def compile(self, artifact: Artifact) -> CompiledModel:
        """Compile for timing."""
        with self.watch.timed(Kind.COMPILATION):
            return self.backend.compile(artifact, threads=self.threads, batch_size=self.batch_size)

    def compile_to_score(self, artifact: Artifact) -> CompiledModel:
        """Compile for scoring, with every core this process may use; what is compiled so already is shared."""
        shared = self.scoring.get(artifact.digest)
        if shared is not None:
            return shared
        with self.watch.timed(Kind.COMPILATION):
            compiled = TimedModel(self.backend.compile(artifact, threads=self.cores), self.watch)
        self.scoring[artifact.digest] = compiled
        return compiled

    def time(
        self, models: Mapping[str, CompiledModel], settings: TimingSettings, reference: str = GIVEN_ID
    ) -> dict[str, LatencyStats]:
        """Time models, paired with the given network, which is among them as ``reference``."""
        with self.watch.timed(Kind.INFERENCE):
            stats = time_paired(
                models,
                reference,
                self.inputs,
                self.with_known_speed(settings),
                threads=self.threads,
                batch_size=self.batch_size,
                clock=self.backend.clock,
                processor_clock=self.backend.processor_clock,
            )
        self.undisturbed_ms.append(stats[reference].median_ms)
        return stats

    def with_known_speed(self, settings: TimingSettings) -> TimingSettings:
        """Timing settings with the given network's fastest known latency, so that disturbed rounds are told."""
        return replace(settings, undisturbed_ms=min(self.undisturbed_ms, default=None))


def nearest(wanted: Scheme, offered: Sequence[Scheme]) -> Scheme:
    """The scheme itself if it is offered, else one of the same precision, else of the next higher one that is."""
    if wanted in offered:
        return wanted
    higher = [scheme for scheme in offered if scheme.precision.bits >= wanted.precision.bits]
    return min(higher, key=lambda c: (c.precision.bits, c.activations != wanted.activations), default=FP32)
