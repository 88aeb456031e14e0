"""Measurements kept on disk, so that none is repeated: neither for equal schemes nor after a kill.

Schemes lead to an artifact's digest, the digest to its measurements: different schemes that are written as the same
bytes share them. Each kind has a key of everything it depends on:

    lowered   network, dialect, calibration → digest and size of the artifact, or why there is none
    timed     digest, device, runtime, threads, batch → paired latency
    footprint the same → memory that the compiled model takes
    scored    digest, device, runtime, data, metric → scores so far
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitfront.core import ContentStore, LatencyStats, MemoryUsage, Scheme, digest
from bitfront.core.document import JsonValue
from bitfront.search.measuring.accuracy import Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered(JsonValue):
    """Result of writing the artifact of some schemes.

    Attributes:
        artifact: Digest of the bytes; empty where they could not be written or compiled.
        size_bytes: Number of its bytes.
        failure: Why there is no artifact; empty where there is one.
    """

    artifact: str
    size_bytes: int
    failure: str = ""


class MeasurementCache:
    """Measurements by content.

    Args:
        store: Where measurements are kept.
        lowering: What an artifact depends on besides its schemes.
        timing: What a latency depends on besides the artifact.
        scoring: What scores depend on besides the artifact and the part of the data.

    Attributes:
        scoring: As given.
    """

    def __init__(self, store: ContentStore, *, lowering: str, timing: str, scoring: str) -> None:
        self._store = store
        self._lowering = lowering
        self._timing = timing
        self.scoring = scoring
        self._scores: dict[tuple[str, str], Scored] = {}

    def lowered(self, layers: Mapping[str, Scheme], variant: str = "") -> Lowered | None:
        """The artifact that layer name → scheme was written as, or None if it never was.

        Args:
            layers: Layer name → scheme.
            variant: Id of the variant; empty for the given one.
        """
        data = self._store.get_json("lowered", self._schemes_key(layers, variant))
        return Lowered.from_json(data) if data else None

    def put_lowered(self, layers: Mapping[str, Scheme], lowered: Lowered, variant: str = "") -> None:
        """Keep the artifact that layer name → scheme was written as."""
        self._store.put_json("lowered", self._schemes_key(layers, variant), lowered.to_json())

    def latency(self, artifact: str) -> LatencyStats | None:
        """The artifact's paired latency, or None if it was not timed."""
        data = self._store.get_json("timed", digest(self._timing, artifact))
        return LatencyStats.from_json(data) if data else None

    def put_latency(self, artifact: str, latency: LatencyStats) -> None:
        """Keep the artifact's paired latency."""
        self._store.put_json("timed", digest(self._timing, artifact), latency.to_json())

    def memory_usage(self, artifact: str) -> MemoryUsage | None:
        """Memory that the compiled artifact takes, or None if it was never asked."""
        data = self._store.get_json("footprint", digest(self._timing, artifact))
        return MemoryUsage.from_json(data) if data else None

    def put_memory_usage(self, artifact: str, usage: MemoryUsage) -> None:
        """Keep the memory that the compiled artifact takes."""
        self._store.put_json("footprint", digest(self._timing, artifact), usage.to_json())

    def joint_latencies(self, kind: str, artifacts: Sequence[str]) -> dict[str, LatencyStats] | None:
        """Artifact → latency of artifacts that were timed together, or None unless exactly these were."""
        data = self._store.get_json(kind, digest(self._timing, sorted(artifacts)))
        return {artifact: LatencyStats.from_json(entry) for artifact, entry in data.items()} if data else None

    def put_joint_latencies(self, kind: str, latencies: Mapping[str, LatencyStats]) -> None:
        """Keep latencies of artifacts timed together, by artifact."""
        data = {artifact: latency.to_json() for artifact, latency in latencies.items()}
        self._store.put_json(kind, digest(self._timing, sorted(latencies)), data)

    def scored(self, artifact: str, part: str) -> Scored | None:
        """The artifact's scores so far on one part of the evaluation data, or None if there are none."""
        if (artifact, part) not in self._scores:
            data = self._store.get_arrays("scored", digest(self.scoring, artifact, part))
            if data is None:
                return None
            self._scores[artifact, part] = Scored(data["scores"].astype(np.float64), int(data["samples"]))
        return self._scores[artifact, part]

    def put_scored(self, artifact: str, part: str, scored: Scored) -> None:
        """Keep the artifact's scores so far."""
        self._scores[artifact, part] = scored
        arrays = {"scores": scored.scores, "samples": np.asarray(scored.samples)}
        self._store.put_arrays("scored", digest(self.scoring, artifact, part), arrays)

    def _schemes_key(self, layers: Mapping[str, Scheme], variant: str) -> str:
        return digest(self._lowering, variant, {layer: scheme.text for layer, scheme in layers.items()})
