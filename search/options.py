"""The options of a run, validated once, in one frozen value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from bitfront.core import CalibrationSettings, Constraints, Precision, Preference, UsageError
from bitfront.search.passes.options import PassOptions
from bitfront.search.policy.config import DEFAULTS, PolicyConfig
from bitfront.search.results.ranking import Ranking

MOST_SEED = 2**32 - 1  # numpy's RandomState, which Optuna draws with, takes no more


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of one search.

    Attributes:
        budget: Limits the recommended point must meet.
        precisions: Precisions layers may take; ``fp32`` is always among them.
        backend: Name of the runtime.
        threads: Intra-operator threads of the runtime, for timing and for everything else.
        batch_size: Samples per timed inference.
        trials: At most this many measured candidates, baselines and seeds included.
        time_limit_s: Wall-clock limit of the search phase in seconds; None is none.
        seed: Seeds the sampler and every random draw.
        calibration: How activations are calibrated.
        holdout: Share of the evaluation data held out of the search for the final scores.
        sensitivity_samples: Calibration samples each sensitivity score is taken on.
        out: The run folder.
        storage: Optuna storage URL; None is SQLite in the run folder.
        save_engine: Keep each finalist as the runtime's own file as well.
        resume: Continue the run in ``out`` instead of starting afresh.
        passes: Passes that take part in the search; None is none.
        policy: What steers the search; studies vary it.
        preference: What is wanted most of points within the limits.
    """

    budget: Constraints
    out: Path
    precisions: tuple[Precision, ...] = tuple(Precision)
    backend: str = "ort-cpu"
    threads: int = 1
    batch_size: int = 1
    trials: int = 48
    time_limit_s: float | None = None
    seed: int = 0
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    holdout: float = 0.5
    sensitivity_samples: int = 128
    storage: str | None = None
    save_engine: bool = False
    resume: bool = False
    passes: PassOptions | None = None
    policy: PolicyConfig = DEFAULTS
    preference: Preference = field(default_factory=Preference)

    @property
    def ranking(self) -> Ranking:
        """Order of quantities that decides between points within the limits."""
        return Ranking.of(self.budget, self.preference)

    def __post_init__(self) -> None:
        for option, value in (
            ("--threads", self.threads),
            ("--batch-size", self.batch_size),
            ("--trials", self.trials),
            ("--sensitivity-samples", self.sensitivity_samples),
        ):
            if value < 1:
                raise UsageError(f"{option}: expected a positive whole number, got {value}", f"as in {option} 1")
        if not 0 <= self.seed <= MOST_SEED:
            raise UsageError(
                f"--seed: expected a whole number from 0 to {MOST_SEED}, got {self.seed}", "as in --seed 1"
            )
        if self.time_limit_s is not None and not 0 < self.time_limit_s < math.inf:
            raise UsageError(
                f"--time-limit: expected a positive number of seconds, got {self.time_limit_s:g}",
                "leave it out for no limit",
            )
        if not 0 < self.holdout < 1:
            raise UsageError(
                f"--holdout: expected a fraction between 0 and 1, got {self.holdout:g}",
                "0.5 holds half of the data back",
            )
        if Precision.FP32 not in self.precisions:
            object.__setattr__(self, "precisions", (Precision.FP32, *self.precisions))
