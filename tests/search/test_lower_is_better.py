"""A metric that is better when lower: the search goes where it goes for its mirror image, files keep its own values."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from bitfront.core import Array, Constraints, Metric, UsageError, top1
from bitfront.report.html import page
from bitfront.report.results import RunResults
from bitfront.search.measuring.accuracy import summary
from bitfront.search.results.summary import print_summary
from tests.search import toy
from tests.search.toy_runs import Elsewhen, elsewhere, options, search

# Fixtures are found by name in the module.
__all__ = ["elsewhere"]


def _misses(outputs: tuple[Array, ...], labels: Array) -> Array:
    return 1.0 - np.asarray(top1(outputs, labels), dtype=np.float64)


ERROR = Metric(name="error", compute=_misses, direction="lower", unit="%", bounds=(0.0, 1.0), per_sample=True)  # type: ignore[arg-type]


def trials(folder: Path) -> list[dict[str, str]]:
    """The rows of ``trials.csv``."""
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("higher", "lower"),
    [
        (Constraints(min_accuracy=0.875), Constraints(max_error=0.125)),
        (Constraints(max_drop=0.0625), Constraints(max_rise=0.0625)),
        (Constraints(latency_ms=3.0), Constraints(latency_ms=3.0)),
        (Constraints(min_accuracy=0.999, latency_ms=1.0), Constraints(max_error=0.001, latency_ms=1.0)),
    ],
)
def test_an_error_is_searched_as_its_accuracy_is(
    tmp_path: Path, elsewhere: Elsewhen, higher: Constraints, lower: Constraints
) -> None:
    """The same trials with the same ends, the same front and recommendation, the same point nearest to each limit."""
    del elsewhere
    folders = {}
    for name, budget, metric in (("higher", higher, top1), ("lower", lower, ERROR)):
        asked = options(tmp_path / name, trials=16, budget=budget)
        folders[name] = search(asked, workload=toy.workload(metric=metric)).folder
    rows = {name: trials(folder) for name, folder in folders.items()}
    same = ("number", "origin", "state", "choices", "size_bytes", "accuracy_samples")
    assert [[row[key] for key in same] for row in rows["lower"]] == [
        [row[key] for key in same] for row in rows["higher"]
    ]
    for mine, other in zip(rows["lower"], rows["higher"], strict=True):
        if other["accuracy"]:
            assert float(mine["accuracy"]) == pytest.approx(1 - float(other["accuracy"]))
    found = {name: RunResults.load(folder) for name, folder in folders.items()}
    assert found["lower"].front == found["higher"].front
    assert found["lower"].recommended == found["higher"].recommended
    assert found["lower"].nearest == found["higher"].nearest
    for id_, point in found["lower"].points.items():
        error, accuracy = point.shown_accuracy, found["higher"].points[id_].shown_accuracy
        assert error is not None
        assert accuracy is not None
        expected = (1 - accuracy.value, 1 - accuracy.ci_high, 1 - accuracy.ci_low)
        assert (error.value, error.ci_low, error.ci_high) == pytest.approx(expected)
        assert point.feasible == found["higher"].points[id_].feasible


def test_what_people_read_follows_the_direction(tmp_path: Path, elsewhere: Elsewhen) -> None:
    """Settings, headings, limits, axes; values are the metric's own."""
    del elsewhere
    asked = options(tmp_path / "run", trials=8, budget=Constraints(max_error=0.01, max_rise=0.5))
    folder = search(asked, workload=toy.workload(metric=ERROR)).folder
    data = json.loads((folder / "measurement.json").read_text(encoding="utf-8"))
    assert data["settings"]["metric"] == "error"
    assert (data["settings"]["metric_direction"], data["settings"]["metric_unit"]) == ("lower", "%")
    assert (data["budget"]["max_error"], data["budget"]["max_rise"]) == (0.01, 0.5)
    assert any("error" in text and " > 1.00 %" in text for p in data["points"].values() for text in p["violations"])
    stream = StringIO()
    print_summary(folder, stream, quiet=False)
    text = stream.getvalue()
    for words in ("Δ error", "error: error on", "lower is better"):
        assert words in text
    assert "accuracy" not in text
    text = page(RunResults.load(folder))
    for words in (
        "error ≤ 1.00 %",
        "error within 50.00 points of",
        "Error against latency",
        "error (%), lower is better",
    ):
        assert words in text


def test_a_limit_of_the_other_direction_is_refused(tmp_path: Path) -> None:
    """Before anything is measured."""
    with pytest.raises(UsageError, match="--min-acc: metric 'error' is better when lower"):
        search(options(tmp_path / "run", budget=Constraints(min_accuracy=0.5)), workload=toy.workload(metric=ERROR))


@pytest.mark.parametrize("misses", [0, 1, 7, 64])
def test_the_interval_of_an_error_is_the_mirror_image(misses: int) -> None:
    """That of hits, for small samples too: negated zeros and ones are hits as well."""
    errors = np.array([1.0] * misses + [0.0] * (64 - misses))
    found, mirror = summary(-errors).negated(), summary(1.0 - errors)
    assert found.value == pytest.approx(1 - mirror.value)
    assert (found.ci_low, found.ci_high) == pytest.approx((1 - mirror.ci_high, 1 - mirror.ci_low))
