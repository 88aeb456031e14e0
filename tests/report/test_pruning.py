from __future__ import annotations

import math
from pathlib import Path

import pytest

from bitfront.report.pruning import SparsitySeries, kept_info, sparsity_info
from bitfront.report.pruning_plots import draw_kept, draw_sparsity
from bitfront.report.results import RunResults
from bitfront.report.rows import SparsityScore
from tests.report import synthetic, synthetic_passes


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    return RunResults.load(synthetic_passes.passes_run(tmp_path_factory.mktemp("run")))


def _score(group: str, sparsity: float, loss: float, dropped: str = "", trained: float = math.nan) -> SparsityScore:
    kept = round(8 * (1 - sparsity))
    return SparsityScore(
        group=group, sparsity=sparsity, kept=kept, channels=8, loss=loss, trained=trained, dropped=dropped
    )


def test_what_was_pruned_is_shown_per_group_and_point(results: RunResults) -> None:
    """Groups in the network's order, branches among them; points fastest first; whole groups count as 1."""
    info = kept_info(results)
    assert info.points == ("p65", "p64", "p62", "p61")
    assert info.recommended == 2
    assert info.groups == (
        "layer1.0.conv1",
        "layer1.1.conv1",
        "layer1.2.conv1",
        "layer2.3.conv1",
        "layer2.4",
        "layer3.6.conv1",
        "layer3.7.conv1",
        "layer3.8",
    )
    assert info.kept[0] == (0.25, 0.5, 0.5, 0.75)
    assert info.kept[4] == (0.0, 0.0, 0.0, 1.0)
    assert info.tooltips[0][2] == "<b>layer1.0.conv1</b> in p62<br>16 of 32 channels kept"
    assert info.tooltips[6][2] == "<b>layer3.7.conv1</b> in p62<br>32 of 32 channels kept"
    assert info.tooltips[4][2:] == (
        "<b>layer2.4</b> in p62<br>branch removed",
        "<b>layer2.4</b> in p61<br>branch kept",
    )
    (heatmap,) = draw_kept(info).data
    assert list(heatmap.text[4]) == ["removed", "removed", "removed", ""]
    assert list(heatmap.text[0]) == ["25%", "50%", "50%", "75%"]


def test_without_pruning_there_is_nothing_to_show(tmp_path: Path) -> None:
    """No rows, no columns."""
    info = kept_info(RunResults.load(synthetic.feasible_run(tmp_path)))
    assert (info.groups, info.points) == ((), ())


def test_sparsities_are_drawn_level_by_level() -> None:
    """Whole groups and what was not scored are left out; what a log axis cannot show is raised."""
    scores = (
        _score("a", 0.0, 0.0),
        _score("a", 0.25, 0.2),
        _score("a", 0.5, 0.4),
        _score("b<", 0.25, -0.1),
        _score("b<", 0.5, math.nan, "not finite"),
        _score("c", 1.0, 0.9),
    )
    info = sparsity_info(scores)
    assert (info.groups, info.ranked, info.floor) == (("a", "b&lt;", "c"), ("c", "a", "b&lt;"), 0.1)
    assert [series.sparsity for series in info.series] == [0.25, 0.5, 1.0]
    assert info.series[0] == SparsitySeries(
        sparsity=0.25,
        trained=False,
        groups=("a", "b&lt;"),
        values=(0.2, 0.1),
        tooltips=(
            "<b>a</b> 25% pruned<br>6 of 8 channels kept<br>divergence: 0.200",
            "<b>b&lt;</b> 25% pruned<br>6 of 8 channels kept<br>divergence: −0.100",
        ),
    )
    names = [trace.name for trace in draw_sparsity(info).data]
    assert names == ["25% of channels removed", "50% of channels removed", "branch removed"]


def test_what_training_leaves_is_drawn_beside_it() -> None:
    """Open marks of the level's colour, for those groups that were trained."""
    info = sparsity_info(
        [_score("a", 0.5, 0.4, trained=0.1), _score("b", 0.5, 0.2), _score("c", 1.0, 0.9, trained=0.3)]
    )
    assert [(series.sparsity, series.trained, series.groups, series.values) for series in info.series] == [
        (0.5, False, ("a", "b"), (0.4, 0.2)),
        (0.5, True, ("a",), (0.1,)),
        (1.0, False, ("c",), (0.9,)),
        (1.0, True, ("c",), (0.3,)),
    ]
    lines = ("<b>c</b> 100% pruned", "0 of 8 channels kept", "divergence: 0.900", "after a short training: 0.300")
    assert info.series[3].tooltips == ("<br>".join(lines),)
    assert info.floor == 0.05
    traces = draw_sparsity(info).data
    assert [trace.name for trace in traces][2:] == ["branch removed", "branch removed, trained"]
    assert [trace.marker.symbol for trace in traces] == ["circle", "circle-open", "x", "x-open"]
    assert [trace.showlegend for trace in traces] == [True, False, True, False]
    assert traces[0].marker.color == traces[1].marker.color != traces[2].marker.color


def test_no_sparsities_make_no_plot() -> None:
    """Nothing is invented."""
    assert sparsity_info(()).series == ()
