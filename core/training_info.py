"""Training of a run: what it cost, and which variants its successive halving let go on."""

from __future__ import annotations

from dataclasses import dataclass

from bitfront.core.document import Count, JsonValue, NonNegative, Number


@dataclass(frozen=True, slots=True, kw_only=True)
class RungInfo(JsonValue):
    """Variant at one rung of the successive halving.

    Attributes:
        network: Its label.
        rung: 0 for the first.
        steps: Training steps it had when it was judged.
        value: The metric it was judged by, on the search's data; None where not scored.
        kept: Whether it went on.
    """

    network: str
    rung: Count
    steps: Count
    value: Number | None
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainInfo(JsonValue):
    """The run's training.

    Attributes:
        budget_s: What was allowed, in seconds; None without limit.
        spent_s: What was used.
        networks: Networks made.
        trained: Those of them that were trained at all.
        promoted: How often one was let go on to the next rung.
        history: The successive halving, in the order in which it went.
    """

    budget_s: NonNegative | None
    spent_s: NonNegative
    networks: Count
    trained: Count
    promoted: Count
    history: tuple[RungInfo, ...] = ()
