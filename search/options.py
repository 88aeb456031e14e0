"""The options of a run, validated once, in one frozen value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitfront.core import CalibrationSettings, Constraints, Precision, UsageError
from bitfront.search.policy.config import DEFAULTS, PolicyConfig

MOST_TRAINING_S = 600.0  # where no budget is given
IMPORTANCES = ("taylor", "fisher", "hessian", "magnitude")  # of ``passes.prune_importance``
MOST_SEED = 2**32 - 1  # numpy's RandomState, which Optuna draws with, takes no more
MOST_M = 1024
_N_OF_M = re.compile(r"([0-9]{1,4}):([0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class SparsePattern:
    """A pattern of weights that become zero: ``2:4`` or a fraction of all of them, ``0.8``.

    Attributes:
        text: As typed.
    """

    text: str

    def __post_init__(self) -> None:
        if not (0 < self.n < self.m <= MOST_M or 0 < self.fraction < 1):
            raise UsageError(
                f"--sparse-weights: expected N:M with N below M and M at most {MOST_M}, or a fraction between 0 and 1, "
                f"got '{self.text[:80]}'",
                "as in 2:4,0.8",
            )

    @property
    def n(self) -> int:
        """Weights that stay among any ``m`` neighbours; 0 for a fraction."""
        found = _N_OF_M.fullmatch(self.text)
        return int(found[1]) if found else 0

    @property
    def m(self) -> int:
        """Neighbours among which ``n`` weights stay; 0 for a fraction."""
        found = _N_OF_M.fullmatch(self.text)
        return int(found[2]) if found else 0

    @property
    def fraction(self) -> float:
        """Fraction of all weights that become zero; 0 for N:M, NaN where the text is neither."""
        try:
            return 0.0 if self.m else float(self.text) if self.text.isascii() and "_" not in self.text else math.nan
        except ValueError:
            return math.nan

    @property
    def label(self) -> str:
        """The pattern in words: ``2:4``, ``80 % zeros``."""
        return f"{self.n}:{self.m}" if self.m else f"{self.fraction:.0%} zeros".replace("%", " %")


@dataclass(frozen=True, slots=True, kw_only=True)
class PassOptions:
    """Which passes take part in a search, and how.

    Attributes:
        prune: Remove channels and residual branches.
        distil: Train what passes made, and the workload's students, on the given network's answers.
        qat: Train finalists as the artifacts they will be.
        sparse: Offer networks with zeros among their weights.
        train_budget_s: Seconds of training in the whole run; None: what usually pays, ``MOST_TRAINING_S`` at most.
        sparsities: Fractions of a group's channels that may go, ascending, without 0.
        round_to: Channels that stay are a multiple of it; None: what the runtime's kernels like.
        importance: What is removed first, one of ``IMPORTANCES``.
        sparse_weights: Patterns of zeros, a network each.
    """

    prune: bool = False
    distil: bool = False
    qat: bool = False
    sparse: bool = False
    train_budget_s: float | None = None
    sparsities: tuple[float, ...] = (0.25, 0.5, 0.75)
    round_to: int | None = None
    importance: str = "taylor"
    sparse_weights: tuple[SparsePattern, ...] = (SparsePattern("2:4"),)

    def __post_init__(self) -> None:
        if not (self.prune or self.distil or self.qat or self.sparse):
            raise UsageError("--passes: expected some of prune,distill,qat,sparse, got nothing", "as in --passes prune")
        if self.train_budget_s is not None and not 0 < self.train_budget_s < math.inf:
            raise UsageError(
                f"--train-budget: expected a positive number of minutes, got {self.train_budget_s / 60:g}", "as in 20"
            )
        ascending = list(self.sparsities) == sorted(set(self.sparsities))
        if not self.sparsities or not ascending or not all(0 < level < 1 for level in self.sparsities):
            got = ",".join(f"{level:g}" for level in self.sparsities) or "nothing"
            raise UsageError(
                f"--sparsities: expected ascending fractions between 0 and 1, got {got}", "as in 0.25,0.5,0.75"
            )
        if self.round_to is not None and self.round_to < 1:
            raise UsageError(f"--round-to: expected a positive whole number or auto, got {self.round_to}", "as in 8")
        if self.sparse and not self.sparse_weights:
            raise UsageError("--sparse-weights: expected patterns, got nothing", "as in 2:4,0.8")
        if self.importance not in IMPORTANCES:
            raise UsageError(
                f"--importance: expected one of {', '.join(IMPORTANCES)}, got '{self.importance}'",
                f"{IMPORTANCES[0]} is the default",
            )

    @property
    def limit_s(self) -> float:
        """Seconds of training that may not be exceeded."""
        return MOST_TRAINING_S if self.train_budget_s is None else self.train_budget_s

    def to_json(self) -> dict[str, Any]:
        """What is said of them in results: options of passes that take part."""
        found: dict[str, Any] = {"passes": self.names, "train_budget_s": self.train_budget_s or "auto"}
        if self.prune:
            found |= {
                "sparsities": list(self.sparsities),
                "round_to": self.round_to or "auto",
                "importance": self.importance,
            }
        if self.sparse:
            found["sparse_weights"] = [pattern.text for pattern in self.sparse_weights]
        return found

    @property
    def names(self) -> str:
        """As on the command line, ``prune,distill,qat``."""
        asked = {"prune": self.prune, "distill": self.distil, "qat": self.qat, "sparse": self.sparse}
        return ",".join(name for name, wanted in asked.items() if wanted)


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
        holdout: Share of the evaluation data held back from the search for the final scores.
        sensitivity_samples: Calibration samples each sensitivity score is taken on.
        out: The run folder.
        storage: Optuna storage URL; None is SQLite in the run folder.
        save_engine: Keep each finalist as the runtime's own file as well.
        resume: Continue the run in ``out`` instead of starting afresh.
        passes: Passes that take part in the search; None is none.
        policy: What steers the search; studies vary it.
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
