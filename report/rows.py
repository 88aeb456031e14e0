"""The rows of a run's tables as values: trials, and the sensitivity of each group to each scheme and each sparsity.

Columns that came later (``network``, ``pruning``, ``trained``) may be missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from bitfront.core import Scheme
from bitfront.core.document import decode_json
from bitfront.core.scheme import SchemeText
from bitfront.report.csv_fields import cell, number_or_none, share, whole, whole_or_none

_SCHEMES = dict[str, SchemeText]
_SHARES = dict[str, Annotated[float, Field(ge=0, le=1)]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Candidate that the search tried; what was not measured is None.

    ``variant`` is an id, empty for the given one; ``pruning`` is prune group → share removed, 1 for a branch.
    """

    number: int
    origin: str
    state: str
    size_bytes: int | None
    latency_ms: float | None
    latency_p90_ms: float | None
    ratio: float | None
    accuracy: float | None
    accuracy_samples: int | None
    seconds: float | None
    reason: str
    schemes: Mapping[str, Scheme]
    variant: str = ""
    pruning: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Row of the sensitivity table; NaN where a value was not scored.

    Attributes:
        group: The group that takes the scheme.
        scheme: What it takes.
        single_layer: Divergence where only this group is changed; column ``alone``.
        leave_one_out: Divergence that this group adds where everything else is at its lowest precision; column
            ``restored``.
        loss: What the search reckons with.
        dropped: Why the scheme is not offered; empty where it is.
    """

    group: str
    scheme: Scheme
    single_layer: float
    leave_one_out: float
    loss: float
    dropped: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsityScore:
    """Loss of a prune group pruned by itself to one sparsity; NaN where it was not scored.

    ``loss`` is before any training, ``trained`` after a short one.
    """

    group: str
    sparsity: float
    kept: int
    channels: int
    loss: float
    trained: float
    dropped: str


def read_trial(row: Mapping[str, str]) -> Trial:
    """A row of ``trials.csv``.

    Raises:
        KeyError, ValueError, EngineError: If it is none.
    """
    return Trial(
        number=whole(row["number"]),
        origin=row["origin"],
        state=row["state"],
        size_bytes=whole_or_none(row["size_bytes"]),
        latency_ms=number_or_none(row["latency_ms"]),
        latency_p90_ms=number_or_none(row["latency_p90_ms"]),
        ratio=number_or_none(row["ratio"]),
        accuracy=number_or_none(row["accuracy"]),
        accuracy_samples=whole_or_none(row["accuracy_samples"]),
        seconds=number_or_none(row["seconds"]),
        reason=row["reason"],
        schemes=MappingProxyType(decode_json(_SCHEMES, row["choices"] or "{}")),
        variant=row.get("network") or "",
        pruning=MappingProxyType(decode_json(_SHARES, row.get("pruning") or "{}")),
    )


def read_score(row: Mapping[str, str]) -> Score:
    """A row of ``sensitivity.csv``.

    Raises:
        KeyError, ValueError, EngineError: If it is none.
    """
    alone, restored, loss = (cell(row[name]) for name in ("alone", "restored", "loss"))
    return Score(
        group=row["group"],
        scheme=Scheme.parse(row["choice"]),
        single_layer=math.nan if alone is None else alone,
        leave_one_out=math.nan if restored is None else restored,
        loss=math.nan if loss is None else loss,
        dropped=row["dropped"],
    )


def read_sparsity_score(row: Mapping[str, str]) -> SparsityScore:
    """A row of ``sparsity.csv``.

    Raises:
        KeyError, ValueError, EngineError: If it is none.
    """
    loss, trained = cell(row["loss"]), cell(row.get("trained", ""))
    return SparsityScore(
        group=row["group"],
        sparsity=share(row["sparsity"]),
        kept=whole(row["kept"]),
        channels=whole(row["channels"]),
        loss=math.nan if loss is None else loss,
        trained=math.nan if trained is None else trained,
        dropped=row["dropped"],
    )
