"""What a run spent on training, and which networks its successive halving let go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from report.fields import finite, finite_or_none


@dataclass(frozen=True, slots=True, kw_only=True)
class RungInfo:
    """One network at one rung of the successive halving.

    Attributes:
        network: Its label.
        rung: 0 for the first.
        steps: Training steps it had when it was judged.
        value: The metric it was judged by, on the search's data; None where not scored.
        kept: Whether it went on.
    """

    network: str
    rung: int
    steps: int
    value: float | None
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainInfo:
    """The run's training.

    Attributes:
        budget_s: What was allowed, in seconds; None without limit.
        spent_s: What was used.
        networks: Networks made.
        trained: Those of them that were trained at all.
        promoted: How often one was let go on to the next rung.
        history: The successive halving, in the order in which it went.
    """

    budget_s: float | None
    spent_s: float
    networks: int
    trained: int
    promoted: int
    history: tuple[RungInfo, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, one key a field."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainInfo:
        """Read ``to_json``'s form.

        Raises:
            KeyError, TypeError, ValueError: If it is not that.
        """
        return cls(
            budget_s=finite_or_none("train.budget_s", data["budget_s"]),
            spent_s=finite("train.spent_s", data["spent_s"]),
            networks=int(data["networks"]),
            trained=int(data["trained"]),
            promoted=int(data["promoted"]),
            history=tuple(
                RungInfo(
                    network=str(row["network"]),
                    rung=int(row["rung"]),
                    steps=int(row["steps"]),
                    value=finite_or_none(f"value of network {row['network']!r} in train.history", row.get("value")),
                    kept=bool(row["kept"]),
                )
                for row in data["history"]
            ),
        )
