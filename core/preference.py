"""Preferences among the points that meet every limit, and which differences in accuracy count as none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bitfront.core.constraints import Constraints
from bitfront.core.document import JsonValue
from bitfront.core.errors import UsageError
from bitfront.core.measurement import AccuracyStats, PairedDifference

SIGNIFICANCE = 0.16  # about one standard error, one-sided


class Prefer(StrEnum):
    """Quantity that is wanted most."""

    ACCURACY = "accuracy"
    LATENCY = "latency"
    SIZE = "size"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Quantity that is wanted most within the limits, and the level at which accuracies are told apart.

    Attributes:
        prefer: The quantity; None leaves it to the limits.
        significance: Level of the paired test: a point is less accurate than the best only where scores so much lower
            would come by chance no oftener than this. 1 takes every difference as real.

    Raises:
        UsageError: If the level is no probability above 0.
    """

    prefer: Prefer | None = None
    significance: float = SIGNIFICANCE

    def __post_init__(self) -> None:
        if not 0 < self.significance <= 1:
            raise UsageError(
                f"--significance: expected a probability above 0 and at most 1, got {self.significance:g}",
                "0.05 asks for more evidence before a faster point is passed over, 1 for none",
            )

    def within(self, budget: Constraints) -> Prefer:
        """The quantity wanted most: as asked for, else latency where accuracy alone is limited, else accuracy."""
        return self.prefer or (Prefer.LATENCY if budget.accuracy_alone else Prefer.ACCURACY)

    def accuracy_first(self, budget: Constraints) -> bool:
        """Whether the most accurate come first: where they are wanted most, or where nothing else bounds the loss."""
        return self.within(budget) is Prefer.ACCURACY or not budget.limits_accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(JsonValue):
    """Grounds on which the recommended point was chosen, and its accuracy free of the luck in that.

    Attributes:
        prefer: What was wanted most.
        significance: The level at which accuracies are told apart.
        accuracy: Of the recommended, on held-out samples none of which had a part in choosing what it was scored
            with; None where nothing is recommended or no scores a sample are known.
        change: Its difference to the given network, likewise.
        rival: Id of the most accurate point within the limits, where another is recommended that is not told from it.
        rival_change: The rival's accuracy minus that of the recommended, on all samples, which the choice goes by.
    """

    prefer: Prefer
    significance: float
    accuracy: AccuracyStats | None = None
    change: PairedDifference | None = None
    rival: str | None = None
    rival_change: PairedDifference | None = None
