"""What candidates are tried on: it writes them, compiles them, times them beside the given network, and clocks it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bitfront.backends.base import Backend, CompiledModel
from bitfront.backends.timing import TimingSettings, time_paired
from bitfront.core import FP32, Inputs, LatencyStats, LoweringError, PrecisionConfig, Scheme
from bitfront.core.given_network import GIVEN_ID
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.measurement_cache import MeasurementCache
from bitfront.search.stopwatch import Kind, Stopwatch
from bitfront.search.timed import TimedModel
from bitfront.search.trial import Candidate

if TYPE_CHECKING:
    from bitfront.search.variants.maker import Network

QUICK = TimingSettings(
    slot_ms=5.0, warmup_runs=2, min_rounds=6, max_rounds=24, max_seconds_per_model=0.15, target=0.015
)
_REMEMBERED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRunner:
    """What candidates are tried on.

    Attributes:
        lowerer: Writes the given network.
        backend: Compiles and runs them.
        inputs: One batch, what every timed run gets.
        threads, batch_size: As timed.
        cores: What scoring may use.
        measurements: Remembers.
        watch: Clocks.
        made: Networks that passes made of the given one, by key.
        quiet: The given network's latency in the latest timings, in ms: the fastest of them tells a disturbed machine.
    """

    lowerer: Lowerer
    backend: Backend
    inputs: Inputs
    threads: int
    batch_size: int
    cores: int
    measurements: MeasurementCache
    watch: Stopwatch
    made: Mapping[str, Network] = field(default_factory=dict)
    quiet: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def writer(self, network: str) -> Lowerer:
        """Writes the network of that key; the given one for none."""
        return self.made[network].lowerer if network else self.lowerer

    def layers(self, candidate: Candidate) -> dict[str, Scheme]:
        """Layer name → scheme, every layer of the candidate's network.

        Where pruning has left a layer that may not take its scheme, it takes the nearest that it may.

        Raises:
            LoweringError: If its network could not be made.
        """
        if candidate.pruning and not candidate.network:
            raise LoweringError(
                f"candidate of {candidate.origin}: no network could be made for its pruning",
                "the search goes on without it",
            )
        writer = self.writer(candidate.network)
        if candidate.family or not candidate.network:
            return writer.quantisable.spread(candidate.schemes)
        wanted = self.lowerer.quantisable.spread(candidate.schemes)
        return {layer.name: nearest(wanted[layer.name], layer.schemes) for layer in writer.quantisable.layers}

    def lower(self, layers: Mapping[str, Scheme], network: str = "") -> bytes:
        """The artifact's bytes."""
        with self.watch.timed(Kind.LOWERING):
            return self.writer(network).lower(layers)

    def config(self, layers: Mapping[str, Scheme], network: str = "") -> PrecisionConfig:
        """The reusable config of a network's layers: about the given one, with the recipe that made it if any."""
        config = self.writer(network).config(layers)
        if not network:
            return config
        given = self.lowerer.reference
        recipe = self.made[network].recipe
        return replace(config, model=given.fingerprint, architecture=given.architecture, recipe=recipe)

    def compile(self, model: bytes) -> CompiledModel:
        """Compile for timing."""
        with self.watch.timed(Kind.COMPILATION):
            return self.backend.compile(model, threads=self.threads, batch_size=self.batch_size)

    def compile_to_score(self, model: bytes) -> CompiledModel:
        """Compile for scoring, with every core this process may use."""
        with self.watch.timed(Kind.COMPILATION):
            return TimedModel(self.backend.compile(model, threads=self.cores), self.watch)

    def time(
        self, models: Mapping[str, CompiledModel], settings: TimingSettings, reference: str = GIVEN_ID
    ) -> dict[str, LatencyStats]:
        """Paired with the given network, which is among the models as ``reference``."""
        with self.watch.timed(Kind.INFERENCE):
            stats = time_paired(
                models,
                reference,
                self.inputs,
                self.patient(settings),
                threads=self.threads,
                batch_size=self.batch_size,
                clock=self.backend.clock,
            )
        self.quiet.append(stats[reference].median_ms)
        return stats

    def patient(self, settings: TimingSettings) -> TimingSettings:
        """Settings that wait for the speed the machine is known to have."""
        return replace(settings, quiet_ms=min(self.quiet, default=None))


def nearest(wanted: Scheme, offered: Sequence[Scheme]) -> Scheme:
    """The scheme itself if it is offered, else one of the same precision, else of the next higher one that is."""
    if wanted in offered:
        return wanted
    higher = [scheme for scheme in offered if scheme.precision.bits >= wanted.precision.bits]
    return min(higher, key=lambda c: (c.precision.bits, c.weight_only is not wanted.weight_only), default=FP32)
