"""Values read from a run's files, refused where they are not what they should be: the file is named, and the row."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from precision import AccuracyStats, DataError, EngineError, LatencyStats

_DAMAGED = "restore the file, or run the search again with --resume to have it written anew"
_Row = TypeVar("_Row")


def damaged(path: Path, error: Exception) -> DataError:
    """The error for a file that does not fit the format."""
    what = f"no entry {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
    return DataError(f"'{path}' is damaged: {what}", _DAMAGED)


def finite(what: str, value: Any) -> float:
    """``value`` as a number.

    Raises:
        ValueError: If it is none, NaN or infinite; says ``what`` it is.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what}: expected a finite number, got {value!r}")
    return float(value)


def finite_or_none(what: str, value: Any) -> float | None:
    """As ``finite``, where the value may be missing."""
    return None if value is None else finite(what, value)


def cell(text: str) -> float | None:
    """A cell's number; None for an empty cell or NaN, which is how tables write what was not measured."""
    value = float(text) if text else math.nan
    return None if math.isnan(value) else value


def read_csv(path: Path, parse: Callable[[Mapping[str, str]], _Row], *, required: bool) -> tuple[_Row, ...]:
    """A table's rows; none where the file is missing and not ``required``.

    Raises:
        DataError: If the file is missing, unreadable or damaged; names it, and the row.
    """
    if not required and not path.exists():
        return ()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise damaged(path, error) from error
    parsed = []
    for line, row in enumerate(rows, start=2):
        try:
            parsed.append(parse(row))
        except (KeyError, TypeError, ValueError, AttributeError, EngineError) as error:
            raise DataError(f"{damaged(path, error).message} (row {line})", _DAMAGED) from error
    return tuple(parsed)


def latency_stats(whose: str, data: Mapping[str, Any] | None) -> LatencyStats | None:
    """A latency from plain JSON; None stays None, and ``whose`` it is names it in errors.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    if data is None:
        return None
    stats = LatencyStats.from_json(data)
    for name, value in stats.to_json().items():
        finite(f"{name} of {whose}", value)
    return stats


def accuracy_stats(whose: str, data: Mapping[str, Any] | None) -> AccuracyStats | None:
    """An accuracy from plain JSON; None stays None, and ``whose`` it is names it in errors.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    if data is None:
        return None
    stats = AccuracyStats.from_json(data)
    for name, value in stats.to_json().items():
        finite(f"accuracy {name} of {whose}", value)
    return stats
