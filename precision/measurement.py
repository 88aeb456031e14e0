"""What was measured: latency with its spread, size, accuracy with its interval. Never an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStats:
    """Latency of one model timed interleaved with a reference in one process.

    Attributes:
        median_ms, p90_ms: Over all timed runs of this model, in milliseconds.
        ci_low_ms, ci_high_ms: 95 % bootstrap interval of the median.
        ratio: Median over rounds of this model's time over the reference's in the same round.
        ratio_low, ratio_high: 95 % bootstrap interval of ``ratio``.
        rounds: Interleaved rounds that count, each of which ran every model of the comparison.
        threads, batch_size: What it ran with.
        rounds_left_out: Rounds that do not count, because the machine was disturbed.
    """

    median_ms: float
    p90_ms: float
    ci_low_ms: float
    ci_high_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    threads: int
    batch_size: int
    rounds_left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, one key a field."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyStats:
        """Read ``to_json``'s form."""
        return cls(**data)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyStats:
    """A metric's mean on a number of samples with its 95 % interval.

    Attributes:
        value: The metric, higher is better; a fraction for ``top1``.
        ci_low, ci_high: 95 % interval of ``value``; equal to it where the metric has no per-sample scores.
        samples: How many samples were scored.
    """

    value: float
    ci_low: float
    ci_high: float
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, one key a field."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AccuracyStats:
        """Read ``to_json``'s form."""
        return cls(**data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a compiled model takes, as far as its runtime tells; None where it does not.

    Attributes:
        engine_bytes: The runtime's own file of the compiled model (a TensorRT plan).
        weight_bytes: Weights as the runtime holds them.
        activation_bytes: Scratch and activation memory of one run.
    """

    engine_bytes: int | None = None
    weight_bytes: int | None = None
    activation_bytes: int | None = None

    def to_json(self) -> dict[str, int | None]:
        """Plain JSON, one key a field."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Footprint:
        """Read ``to_json``'s form."""
        return cls(**data)

    @property
    def known(self) -> bool:
        """Whether the runtime told anything."""
        return self != Footprint()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Everything measured about one artifact; parts not measured yet are None.

    Attributes:
        size_bytes: Size of the file that is handed over.
        latency: Paired latency, None where it was not timed.
        accuracy: The metric of the artifact on its backend, None where it was not scored.
    """

    size_bytes: int
    latency: LatencyStats | None = None
    accuracy: AccuracyStats | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; None for what was not measured."""
        return {
            "size_bytes": self.size_bytes,
            "latency": self.latency.to_json() if self.latency else None,
            "accuracy": self.accuracy.to_json() if self.accuracy else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """Read ``to_json``'s form."""
        return cls(
            size_bytes=int(data["size_bytes"]),
            latency=LatencyStats.from_json(data["latency"]) if data["latency"] else None,
            accuracy=AccuracyStats.from_json(data["accuracy"]) if data["accuracy"] else None,
        )
