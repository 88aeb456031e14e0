"""A run is resumed with what it began with, and with nothing that merely bears the same name."""

from __future__ import annotations

import functools
import json
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfront.core import Array, UsageError, as_metric
from bitfront.report.results import RunResults
from bitfront.search.run_folder.identity import RUN_FILE
from tests.search import toy
from tests.search.toy_runs import Elsewhen, elsewhere, options, search

# Fixtures are found by name in the module.
__all__ = ["elsewhere"]


def scaled(outputs: tuple[Array, ...], labels: Array, *, factor: float = 1.0) -> Array:
    """Top-1 hits, each worth ``factor``."""
    return np.asarray((outputs[0].argmax(axis=1) == labels) * factor)


class Scaled:
    def __init__(self, factor: float, held: object = None) -> None:
        self.factor = factor
        self.held = held

    def __call__(self, outputs: tuple[Array, ...], labels: Array) -> Array:
        """As ``scaled``."""
        return scaled(outputs, labels, factor=self.factor)

    def method(self, outputs: tuple[Array, ...], labels: Array) -> Array:
        """As ``scaled``."""
        return self(outputs, labels)


PAIRS: dict[str, Callable[[float], Any]] = {
    "partial": lambda factor: functools.partial(scaled, factor=factor),
    "lambda": lambda factor: lambda outputs, labels: scaled(outputs, labels, factor=factor),
    "instance": Scaled,
    "bound method": lambda factor: Scaled(factor).method,
}


@pytest.mark.parametrize("kind", PAIRS)
def test_another_metric_of_the_same_name_is_refused(tmp_path: Path, kind: str) -> None:
    """By the metric's name in the message; with an equal metric the run goes on, and keeps its scores."""
    asked, make = options(tmp_path / "run", trials=4), PAIRS[kind]
    search(asked, workload=toy.workload(metric=make(1.0)))
    before = RunResults.load(asked.out)
    assert as_metric(make(1.0)).name == as_metric(make(0.25)).name
    with pytest.raises(UsageError, match=r"was about something else; different: the metric\n"):
        search(replace(asked, resume=True), workload=toy.workload(metric=make(0.25)))
    backend = toy.ToyBackend()
    search(replace(asked, resume=True), backend, workload=toy.workload(metric=make(1.0)))
    assert backend.runs == 0
    assert RunResults.load(asked.out).points == before.points


def test_a_metric_that_cannot_be_told_apart_cannot_be_resumed(tmp_path: Path) -> None:
    """It can be searched with; a resume says why not, and what can be done."""
    with socket.socket() as held:
        metric = Scaled(1.0, held)
        asked = options(tmp_path / "run", trials=4)
        assert search(asked, workload=toy.workload(metric=metric)).exit_code == 0
        with pytest.raises(
            UsageError, match=r"whether the metric is what the run .* began with cannot be told: .*\.held is a socket"
        ) as caught:
            search(replace(asked, resume=True), workload=toy.workload(metric=metric))
    assert "another --out" in caught.value.hint


def test_a_partial_is_called_as_its_function() -> None:
    """In reports, ``functools:partial`` would say nothing."""
    assert as_metric(functools.partial(scaled, factor=2.0)).name == f"{__name__}:scaled"


def test_a_backend_of_ones_own_is_known_by_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: Elsewhen
) -> None:
    """An edited backend under the same name: what the old one measured does not stand."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    source = "class Own:\n    FACTOR = {}\n"
    asked = options(tmp_path / "run", trials=4, backend="own_backend:Own")

    def run(factor: int, *, resume: bool) -> None:
        sys.modules.pop("own_backend", None)
        (tmp_path / "own_backend.py").write_text(source.format(factor))
        monkeypatch.setattr("bitfront.search.results.finalists.time_in_subprocess", there)
        search(replace(asked, resume=resume))

    def there(_: str, *arguments: Any, **named: Any) -> Any:
        return elsewhere("fake", *arguments, **named)

    run(1, resume=False)
    run(1, resume=True)
    with pytest.raises(UsageError, match=r"different: the backend's code\n"):
        run(2, resume=True)
    sys.modules.pop("own_backend", None)


DAMAGES = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda _: "",
    "other": lambda _: '{"a": 1}',
    "list": lambda _: "[1]",
    "nested": lambda _: "[" * 100_000,
    "identity": lambda text: json.dumps(json.loads(text) | {"identity": [1]}),
    "numbers": lambda text: json.dumps(json.loads(text) | {"identity": {"--seed": 1}}),
    "study": lambda text: json.dumps(json.loads(text) | {"study": None}),
    "bytes": lambda text: "\udcff" + text,
}  # type: dict[str, Callable[[str], str]]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_of_the_run_is_named(tmp_path: Path, damage: str) -> None:
    """Whatever its damage; nothing else in the folder is touched."""
    asked = options(tmp_path / "run", trials=4)
    search(asked)
    path = asked.out / RUN_FILE
    path.write_text(DAMAGES[damage](path.read_text()), encoding="utf-8", errors="surrogateescape")
    before = {file: file.stat().st_mtime_ns for file in asked.out.rglob("*")}
    with pytest.raises(UsageError, match=r"run\.json'( is damaged: |: expected schema version 2, got)") as caught:
        search(replace(asked, resume=True))
    assert "--out" in caught.value.hint
    assert {file: file.stat().st_mtime_ns for file in asked.out.rglob("*")} == before


def test_the_record_of_another_version_is_named(tmp_path: Path) -> None:
    """Runs of earlier versions knew metrics by their names alone."""
    asked = options(tmp_path / "run", trials=4)
    search(asked)
    path = asked.out / RUN_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 1}))
    with pytest.raises(UsageError, match=r"run\.json': expected schema version 2, got 1"):
        search(replace(asked, resume=True))


def test_a_folder_without_its_record_is_no_run(tmp_path: Path) -> None:
    """What is in it cannot be known to be the same run's; a cache alone does no harm."""
    asked = options(tmp_path / "run", trials=4)
    search(asked)
    (asked.out / RUN_FILE).unlink()
    with pytest.raises(UsageError, match=r"there is no run in '.*': '.*run\.json' is missing"):
        search(replace(asked, resume=True))


@pytest.mark.parametrize("text", ["", "{}", '{"time_split_s": [1]}', '{"time_split_s": {"total": "x"}}', "[" * 100_000])
def test_damaged_results_are_named(tmp_path: Path, text: str) -> None:
    """Moved away, as the hint says, they are written again."""
    asked = options(tmp_path / "run", trials=4)
    search(asked)
    path = asked.out / "measurement.json"
    points = RunResults.load(asked.out).points
    path.write_text(text)
    with pytest.raises(
        UsageError, match=r"measurement\.json'( is damaged: |: expected schema version 1, got)"
    ) as caught:
        search(replace(asked, resume=True))
    assert "move it away" in caught.value.hint
    path.unlink()
    search(replace(asked, resume=True))
    assert RunResults.load(asked.out).points == points
