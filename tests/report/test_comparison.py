"""The comparison of several backends: which points are one config, what stands for all, and its page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.offline
import pytest

from bitfront.core import Constraints, DataError, UsageError
from bitfront.report.comparison import Comparison
from bitfront.report.comparison_page import comparison_page, latency_marks, latency_plots
from bitfront.report.comparison_tables import for_all_text, missing, rule, text_rows
from bitfront.report.render import render_comparison
from tests.report import synthetic

EVIL = "<script>alert(1)</script>"


def write(folder: Path, *, reason: str = "conv1: int4 is not offered on b", budget: Constraints | None = None) -> None:
    """Two backends with the same points; the last of the front could not be had on the second."""
    data, _ = synthetic.measurement(budget=budget or Constraints(), blocks=2, trials=20)
    for name in ("a", "b"):
        own: dict[str, Any] = json.loads(json.dumps(data))
        own["backend"]["name"] = name
        own["complete"] = False  # so that the tables of trials may be missing
        if name == "b":
            gone = next(id_ for id_ in reversed(own["front"]) if id_ not in own["baselines"])
            own["front"].remove(gone)
            del own["points"][gone]
            own["recommended"] = None if own["recommended"] == gone else own["recommended"]
        (folder / name).mkdir()
        (folder / name / "measurement.json").write_text(json.dumps(own), encoding="utf-8")
    marker = {
        "schema_version": 1, "name": "digits", "command": "search", "backends": [
            {"name": "a", "folder": "a"}, {"name": "b", "folder": "b"}],
        "exchange": [{"source": "a", "id": gone, "target": "b", "point": None, "reason": reason}],
    }  # fmt: skip
    (folder / "backends.json").write_text(json.dumps(marker), encoding="utf-8")


def test_equal_layers_are_one_row(tmp_path: Path) -> None:
    """One row a config, under the plain id where it is a baseline of both, else under its finder's name."""
    write(tmp_path)
    comparison = Comparison.load(tmp_path)
    ids = [row.id for row in comparison.rows]
    assert len(set(ids)) == len(ids)
    assert {"fp32", "int8"} <= set(ids)
    assert all(id_.startswith("a.") for id_ in ids if not comparison.row(id_).baseline)
    both = [row for row in comparison.rows if all(cell.point for cell in row.cells.values())]
    assert len(both) == len(comparison.rows) - 1


def test_what_is_missing_has_its_reason(tmp_path: Path) -> None:
    """The cell holds the reason that was written when it could not be had."""
    write(tmp_path)
    ((_, backend, reason),) = missing(Comparison.load(tmp_path))
    assert (backend, reason) == ("b", "conv1: int4 is not offered on b")


@pytest.mark.parametrize("budget", [Constraints(), Constraints(max_drop=0.02)], ids=["accuracy first", "speed first"])
def test_config_for_all_follows_its_rule(tmp_path: Path, budget: Constraints) -> None:
    """Found again by brute force over the rows that meet every limit on both."""
    write(tmp_path, budget=budget)
    comparison = Comparison.load(tmp_path)
    sound = {}
    for row in comparison.rows:
        points = [cell.point for cell in row.cells.values() if cell.sound]
        if len(points) == 2 and points[0] and points[0].latency and points[0].accuracy:
            # The two backends measured the same here: one tells for both.
            sound[row.id] = (points[0].accuracy.value, points[0].latency.median_ms)
    assert comparison.for_all in sound
    accuracy, latency = sound[str(comparison.for_all)]
    if budget.accuracy_alone:
        assert latency == min(ms for _, ms in sound.values())
        assert "slowdown" in rule(comparison)
    else:
        assert accuracy == max(value for value, _ in sound.values())
        assert "worst accuracy is best" in rule(comparison)


def test_nothing_serves_all_where_one_backend_has_nothing(tmp_path: Path) -> None:
    """A backend whose measurements are missing counts as one that meets nothing, and is named in the table."""
    write(tmp_path)
    (tmp_path / "b" / "measurement.json").unlink()
    comparison = render_comparison(tmp_path)
    assert comparison.for_all is None
    assert for_all_text(comparison) == "No single config meets every limit on a and b."
    assert all(row.cells[1].reason for row in text_rows(comparison))
    assert "nothing was measured" in (tmp_path / "comparison.html").read_text(encoding="utf-8")


def test_marks_are_the_configs_that_both_measured(tmp_path: Path) -> None:
    """Each is drawn once."""
    write(tmp_path)
    comparison = Comparison.load(tmp_path)
    labels = [mark.label for marks in latency_marks(comparison, "a", "b").values() for mark in marks]
    assert sorted(labels) == sorted(row.id for row in comparison.rows if all(c.point for c in row.cells.values()))


@pytest.mark.parametrize(("limit", "drawn"), [(5.0, True), (500.0, False)], ids=["near", "far beyond"])
def test_a_budget_far_beyond_every_mark_is_told_instead_of_drawn(tmp_path: Path, limit: float, drawn: bool) -> None:
    """A line there would press all marks into a corner."""
    write(tmp_path, budget=Constraints(latency_ms=limit))
    (plot,) = latency_plots(Comparison.load(tmp_path))
    layout = json.loads(plot.spec)["layout"]
    assert len(layout.get("shapes", [])) == (2 if drawn else 0)
    titles = [layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis")]
    assert [title.endswith("limit 500 is beyond") for title in titles] == [not drawn] * 2


def test_page_shows_every_row_and_runs_nothing_of_the_users(tmp_path: Path) -> None:
    """Every id is on it, every budget and reason is text, and it asks for nothing from outside."""
    write(tmp_path, reason=f"conv1 {EVIL}", budget=Constraints(latency_ms=5.0))
    comparison = Comparison.load(tmp_path)
    text = comparison_page(comparison).replace(plotly.offline.get_plotlyjs(), "")
    assert EVIL not in text
    assert "conv1 &lt;script&gt;" in text
    assert "latency ≤ 5.00 ms" in text
    for row in comparison.rows:
        assert row.id in text
    addresses: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            del tag
            addresses.extend(str(value) for name, value in attrs if name in ("src", "href"))

    Reader().feed(text)
    assert set(addresses) == {"data:,", "./a/report.html", "./b/report.html"}


def test_damage_is_named(tmp_path: Path) -> None:
    """A file that is no JSON, lacks an entry, or is of another version is refused by name."""
    write(tmp_path)
    path = tmp_path / "backends.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, "schema_version": 9}), encoding="utf-8")
    with pytest.raises(UsageError, match="expected schema version 1, got 9"):
        Comparison.load(tmp_path)
    path.write_text(json.dumps({key: data[key] for key in ("schema_version", "name")}), encoding="utf-8")
    with pytest.raises(DataError, match=r"backends\.json' is damaged: command: is missing"):
        Comparison.load(tmp_path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"backends\.json' is damaged"):
        Comparison.load(tmp_path)
