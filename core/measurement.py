"""Measured values: latency with its spread, size, accuracy with its interval. Never an estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bitfront.core.document import Count, JsonValue, NonNegative, Number

INTERVAL_DEVIATIONS = 1.96  # standard deviations in half of a 95 % interval


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStats(JsonValue):
    """Latency of one model timed interleaved with a reference in one process.

    Attributes:
        median_ms: Latency in milliseconds where nobody is in the way: over the fastest fifth of the rounds, the median
            of each round's shortest run (``backends.estimates``). Of earlier versions, the median over all runs.
        p90_ms: 90 % of all timed runs were faster, disturbed ones included.
        ci_low_ms, ci_high_ms: 95 % interval of ``median_ms``.
        ratio: ``median_ms`` over the reference's.
        ratio_low, ratio_high: 95 % interval of ``ratio``.
        rounds: Interleaved rounds that count, each of which ran every model of the comparison.
        threads, batch_size: What it ran with.
        rounds_left_out: Rounds that do not count, because threads waited for a core.
        timings: How many timings, at different moments, were pooled.
    """

    median_ms: NonNegative
    p90_ms: NonNegative
    ci_low_ms: NonNegative
    ci_high_ms: NonNegative
    ratio: NonNegative
    ratio_low: NonNegative
    ratio_high: NonNegative
    rounds: Count
    threads: Count
    batch_size: Count
    rounds_left_out: Count = 0
    timings: Count = 1

    @property
    def ratio_error(self) -> float:
        """Half the interval of the ratio, relative to the ratio."""
        return (self.ratio_high - self.ratio_low) / 2 / self.ratio if self.ratio else 0.0

    @property
    def ratio_deviation(self) -> float:
        """Standard deviation of the ratio."""
        return self.ratio_error * self.ratio / INTERVAL_DEVIATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyStats(JsonValue):
    """A metric's mean on a number of samples with its 95 % interval.

    Attributes:
        value: The metric; a fraction for ``top1``.
        ci_low, ci_high: 95 % interval of ``value``; equal to it where the metric has no per-sample scores.
        samples: How many samples were scored.
    """

    value: Number
    ci_low: Number
    ci_high: Number
    samples: Count

    def negated(self) -> AccuracyStats:
        """The same of the metric's negative: value and interval with the other sign, its ends exchanged."""
        return AccuracyStats(value=-self.value, ci_low=-self.ci_high, ci_high=-self.ci_low, samples=self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference(JsonValue):
    """Mean difference of two networks' scores on the same samples, with its 95 % interval.

    Attributes:
        value: One's mean minus the other's, in the metric's own sign.
        ci_low, ci_high: 95 % interval of ``value``.
        error: Standard error of ``value``.
        better, worse: Samples that the one scores better, and worse, than the other.
        samples: Samples that both were scored on.
        hits: Whether scores are 0 or 1, so that differences are counts of samples.
    """

    value: Number
    ci_low: Number
    ci_high: Number
    error: NonNegative
    better: Count
    worse: Count
    samples: Count
    hits: bool = False

    @property
    def measurable(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.ci_low > 0 or self.ci_high < 0

    def negated(self) -> PairedDifference:
        """The same of the metric's negative; what is better stays so."""
        return replace(self, value=-self.value, ci_low=-self.ci_high, ci_high=-self.ci_low)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUsage(JsonValue):
    """Memory that a compiled model takes, as far as its runtime tells; None where it does not.

    Attributes:
        engine_bytes: The runtime's own file of the compiled model (a TensorRT plan).
        weight_bytes: Weights as the runtime holds them.
        activation_bytes: Scratch and activation memory of one run.
    """

    engine_bytes: Count | None = None
    weight_bytes: Count | None = None
    activation_bytes: Count | None = None

    @property
    def known(self) -> bool:
        """Whether the runtime told anything."""
        return self != MemoryUsage()
