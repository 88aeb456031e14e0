"""A point of a run: one artifact that was kept, with everything that was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bitfront.core.document import Count, JsonValue, PathBelow
from bitfront.core.measurement import AccuracyStats, LatencyStats, MemoryUsage, PairedDifference
from bitfront.core.scheme import SchemeText
from bitfront.core.variant_info import VariantInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Point(JsonValue):
    """Artifact of the run that was kept, with what was measured of it.

    Attributes:
        id: Names its files.
        origin: What proposed it: ``baseline``, ``ladder``, ``solver``, ``sampler``, …
        text: Its schemes in short: ``int8 ×18, int4 ×2``.
        config, model: Paths of its files, relative to the run folder; None where not written.
        size_bytes: Size of the model file.
        latency, accuracy: As reported: from a fresh process, on held-out data; None where not measured.
        search_latency, search_accuracy: As the search saw them; None where not measured.
        feasible: Whether it meets every budget.
        violations: Each budget it misses, in words.
        latency_reproduced: Whether a fresh process measured the same latency ratio; None where it was not timed again.
        layers: Layer name → scheme; empty for the network as it was given.
        footprint: What the compiled model takes; None where not asked, or where the runtime does not tell.
        engine: Path of the runtime's own file, relative to the run folder; None where not written.
        network: The network it was made from; None for the given one.
        compressed_bytes: Size of the model file deflated; None where not measured.
        change, search_change: Difference of ``accuracy``, and of ``search_accuracy``, to the given network on the same
            samples; None where either has no scores a sample.
    """

    id: str
    origin: str
    text: str
    config: PathBelow | None
    model: PathBelow | None
    size_bytes: Count
    latency: LatencyStats | None
    search_latency: LatencyStats | None
    accuracy: AccuracyStats | None
    search_accuracy: AccuracyStats | None
    feasible: bool
    violations: tuple[str, ...]
    latency_reproduced: Annotated[bool | None, Field(alias="held")]
    layers: Mapping[str, SchemeText]
    footprint: MemoryUsage | None = None
    engine: PathBelow | None = None
    network: VariantInfo | None = None
    compressed_bytes: Count | None = None
    change: PairedDifference | None = None
    search_change: PairedDifference | None = None

    @property
    def shown_latency(self) -> LatencyStats | None:
        """The finalists' timing, else the search's."""
        return self.latency or self.search_latency

    @property
    def shown_accuracy(self) -> AccuracyStats | None:
        """The accuracy on held-out data, else the search's."""
        return self.accuracy or self.search_accuracy

    @property
    def shown_change(self) -> PairedDifference | None:
        """Difference of ``shown_accuracy`` to the given network's."""
        return self.change if self.accuracy else self.search_change
