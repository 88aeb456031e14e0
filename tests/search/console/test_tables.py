"""Tables on terminals of any width: figures are whole, and what is left out is said."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bitfront.report.results import RunResults
from bitfront.search.console.tables import Narrowing, write_table
from bitfront.search.results.summary import print_summary
from tests.report import synthetic, synthetic_passes
from tests.search.console.test_progress import Terminal

COLUMNS = ("id", "latency", "p90", "budgets", "layers")
ROWS = [
    ("p08", "2.92 ms", "3.41 ms", "met", "int4 ×11, int8 ×1"),
    ("fp32", "9.43 ms", "9.92 ms", "latency 9.434 ms > 5 ms", "fp32 ×12"),
]
NARROWINGS = [Narrowing(column=2), Narrowing(column=3, cells=("met", "missed")), Narrowing(column=4)]


def drawn(width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The table's lines on a terminal of a width."""
    monkeypatch.setenv("COLUMNS", str(width))
    terminal = Terminal()
    write_table(terminal, COLUMNS, ROWS, wrapping=1, narrowings=NARROWINGS)
    return plain(terminal)


def plain(terminal: Terminal) -> list[str]:
    """What a reader sees, without colours."""
    return [line.rstrip() for line in re.sub("\x1b\\[[0-9;]*m", "", terminal.getvalue()).splitlines()]


@pytest.mark.parametrize(
    ("width", "heading", "left_out"),
    [
        (80, "id    latency  p90      budgets                  layers", ""),
        (64, "id    latency  budgets                  layers", "left out at 64 columns: p90"),
        (50, "id    latency  budgets  layers", "left out at 50 columns: p90"),
        (40, "id    latency  budgets", "left out at 40 columns: p90, layers"),
    ],
)
def test_columns_go_one_after_another(width: int, heading: str, left_out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order given, as few as will do, and the reader is told."""
    lines = drawn(width, monkeypatch)
    assert lines[0] == heading
    assert lines[-1] == left_out if left_out else not lines[-1].startswith("left out")
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [10, 20, 30, 40, 60, 80, 120, 200])
def test_no_figure_is_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids and latencies with their units stand in one line, on a terminal too narrow for them as well."""
    lines = drawn(width, monkeypatch)
    for row in ROWS:
        assert any(re.match(rf"{row[0]} +{row[1]}( |$)", line) for line in lines)


def test_names_fold_where_nothing_else_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long name goes on in the next line, whole; markup in it means nothing, control characters are shown."""
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    name = "[red]features.denseblock4.denselayer16[/red]\x1b[31m\nx"
    write_table(terminal, ("layer", "parameters"), [(name, "1,234,567")], names=(0,))
    lines = plain(terminal)
    assert max(map(len, lines)) <= 40
    shown = "".join(line[:28].rstrip() for line in lines[2:])
    assert shown == "[red]features.denseblock4.denselayer16[/red]\\x1b[31m\\nx"
    assert lines[2].endswith("1,234,567")


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("make", [synthetic.feasible_run, synthetic.infeasible_run, synthetic_passes.passes_run])
def test_a_summary_keeps_its_figures(
    width: int, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each point's id, accuracy, latency, size and both ratios stand in one line of a plain terminal."""
    monkeypatch.setenv("COLUMNS", str(width))
    folder, terminal = make(tmp_path), Terminal()
    print_summary(folder, terminal, quiet=False)
    results = RunResults.load(folder)
    lines = plain(terminal)
    row = re.compile(r"^\W*((?:fp|int|p)\d+) .*% .* ms .* × .* [kM]?B .* ×( |$)")
    found = [match[1] for line in lines if (match := row.match(line))]
    assert sorted(found) == sorted(dict.fromkeys((*results.front, *results.baselines)))
    assert max(len(line) for line in lines if "/" not in line) <= width


def test_what_is_left_out_is_named_apart_from_what_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each heading stands once: what is left out is told by it."""
    monkeypatch.setenv("COLUMNS", "66")
    terminal = Terminal()
    print_summary(synthetic.feasible_run(tmp_path), terminal, quiet=False)
    left_out = terminal.getvalue().split("left out at")[1].splitlines()[0]
    assert "Δ accuracy" in left_out
    assert "lat. ratio" not in left_out


def test_a_latency_that_was_not_reproduced_is_no_missed_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns the limits' cell is one word, and a point within every limit misses none."""
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    print_summary(synthetic.unstable_run(tmp_path), terminal, quiet=False)
    (line,) = [line for line in plain(terminal) if line.split()[:1] == ["int8"]]
    assert line.endswith("unstable")
