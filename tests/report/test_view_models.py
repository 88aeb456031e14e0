from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from bitfront.core import Precision, Scheme
from bitfront.report.results import RunResults
from bitfront.report.rows import Score
from bitfront.report.tooltips import scheme_words, schemes_text
from bitfront.report.view_models import (
    Cost,
    SensitivitySeries,
    front_info,
    heatmap_info,
    sensitivity_info,
    time_info,
    trial_states,
)
from tests.report import synthetic


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    return RunResults.load(synthetic.feasible_run(tmp_path_factory.mktemp("run")))


def _point(results: RunResults, id_: str, latency_ms: float, accuracy: float, size_bytes: int) -> RunResults:
    """``results`` with one point moved."""
    point = results.points[id_]
    assert point.latency is not None
    assert point.accuracy is not None
    moved = dataclasses.replace(
        point,
        latency=dataclasses.replace(point.latency, median_ms=latency_ms),
        accuracy=dataclasses.replace(point.accuracy, value=accuracy),
        size_bytes=size_bytes,
    )
    return dataclasses.replace(results, points={**results.points, id_: moved})


def test_front_plot_shows_positions_in_its_units(results: RunResults) -> None:
    """Latency in ms, size in kB, top-1 in percent; the front by rising cost, budgets on their axes."""
    moved = _point(results, "int8", 2.0, 0.97, 99_500)
    by_latency, by_size = front_info(moved, Cost.LATENCY), front_info(moved, Cost.SIZE)
    assert [(m.x, m.y) for m in by_latency.baselines if m.label == "int8"] == [(2.0, 97.0)]
    assert [(m.x, m.y) for m in by_size.baselines if m.label == "int8"] == [(99.5, 97.0)]
    assert (by_latency.x_title, by_size.x_title) == ("median latency (ms)", "file size (kB)")
    assert (by_latency.y_title, by_latency.y_limit) == ("top1 (%)", 75.0)
    assert (by_latency.x_limit, by_size.x_limit) == (5.0, 150.0)
    for info in (by_latency, by_size):
        assert {m.label for m in info.front} == set(results.front)
        assert [m.x for m in info.front] == sorted(m.x for m in info.front)
        assert {m.label for m in info.baselines} == {"fp32", "fp16", "int8", "int4"}
        assert info.recommended is not None
        assert info.recommended.label == results.recommended


def test_front_plot_shows_every_scored_trial_and_no_other(results: RunResults) -> None:
    """A trial without an accuracy has no place in the plot."""
    scored = [f"trial {trial.number}" for trial in results.trials if trial.accuracy is not None]
    assert [m.label for m in front_info(results, Cost.LATENCY).tried] == scored
    assert 0 < len(scored) < len(results.trials)


def test_front_line_connects_what_is_best_on_its_two_axes(results: RunResults) -> None:
    """Each step is cheaper or better than all others; a front point that only size keeps lies off the latency line."""
    info = front_info(results, Cost.LATENCY)
    assert set(info.step_line) < {(m.x, m.y) for m in info.front}
    for (x0, y0), (x1, y1) in zip(info.step_line, info.step_line[1:], strict=False):
        assert x0 < x1
        assert y0 < y1


def test_large_networks_are_drawn_in_megabytes(results: RunResults) -> None:
    """The unit follows the largest file."""
    info = front_info(_point(results, "fp32", 8.0, 0.974, 45_000_000), Cost.SIZE)
    assert info.x_title == "file size (MB)"
    assert info.x_limit == 0.15
    assert [m.x for m in info.baselines if m.label == "fp32"] == [45.0]


def test_hover_texts_say_everything(results: RunResults) -> None:
    """Id, accuracy with its interval, median and p90, ratio, size, configuration."""
    moved = _point(results, "int8", 2.0, 0.97, 99_500)
    tooltip = next(m.tooltip for m in front_info(moved, Cost.LATENCY).baselines if m.label == "int8")
    for part in ("<b>int8</b> (baseline)", "accuracy 97.00 %", "898 samples", "latency 2.00 ms median", "p90"):
        assert part in tooltip
    for part in ("0.30 × given", "size 99.5 kB", "int8 ×20"):
        assert part in tooltip


def test_heatmap_has_network_order_and_latency_order(results: RunResults) -> None:
    """Rows are layers as in the network, columns the front's points from the fastest on."""
    info = heatmap_info(results)
    assert info.layers == synthetic.layer_names(9)
    assert set(info.points) == set(results.front)
    times = [latency.median_ms for id_ in info.points if (latency := results.points[id_].latency)]
    assert times == sorted(times)
    assert info.recommended is not None
    assert info.points[info.recommended] == results.recommended
    for row, layer in enumerate(info.layers):
        assert info.precisions[row] == tuple(results.points[id_].layers[layer].precision for id_ in info.points)
    column = info.points.index("int4")
    assert info.tooltips[0][column] == "<br>".join(
        ("<b>conv1</b> in int4", "int4 weights (gptq), 8-bit activations", "Conv, 432 weights")
    )


def test_heatmap_without_a_front_shows_the_baselines(tmp_path: Path) -> None:
    """An interrupted run shows what it has."""
    info = heatmap_info(RunResults.load(synthetic.interrupted_run(tmp_path)))
    assert (info.points, info.recommended) == (("int8", "fp32"), None)


def _score(group: str, scheme: str, alone: float, restored: float, dropped: str = "") -> Score:
    return Score(
        group=group,
        scheme=Scheme.parse(scheme),
        single_layer=alone,
        leave_one_out=restored,
        loss=alone,
        dropped=dropped,
    )


def test_sensitivity_draws_the_best_scheme_of_each_precision() -> None:
    """FP32 is left out; the least harmful scheme stands for its precision; what a log axis cannot show is raised."""
    scores = (
        _score("a", "fp32", 0.0, 0.0),
        _score("a", "int8:nearest", 0.4, 0.5),
        _score("a", "int8:mse", 0.2, -0.1),
        _score("a", "int4:mse", math.inf, math.nan, "not finite"),
        _score("b", "fp32", 0.0, 0.0),
        _score("b", "int8:mse", 0.8, 0.6),
        _score("b", "int8:gptq", 0.3, 0.3, "slower"),
    )
    info = sensitivity_info(scores)
    assert (info.groups, info.ranked, info.floor) == (("a", "b"), ("b", "a"), 0.1)
    assert info.series == (
        SensitivitySeries(
            precision=Precision.INT8,
            context="single-layer",
            groups=("a", "b"),
            values=(0.2, 0.8),
            tooltips=("<b>a</b> int8:mse<br>single-layer: 0.200", "<b>b</b> int8:mse<br>single-layer: 0.800"),
        ),
        SensitivitySeries(
            precision=Precision.INT8,
            context="leave-one-out",
            groups=("a", "b"),
            values=(0.1, 0.6),
            tooltips=("<b>a</b> int8:mse<br>leave-one-out: −0.100", "<b>b</b> int8:mse<br>leave-one-out: 0.600"),
        ),
    )


def test_time_adds_up(results: RunResults) -> None:
    """The total is no part; the useful share is that of inference, compilation, solver and calibration."""
    info = time_info(results)
    assert [part for part, _ in info.parts] == [
        "inference",
        "compilation",
        "solver",
        "calibration",
        "lowering",
        "other",
    ]
    assert info.total_s == 73.7
    assert info.useful == pytest.approx((51.3 + 9.8 + 1.2 + 6.4) / 73.7)


def test_time_of_an_empty_run_is_zero(results: RunResults) -> None:
    """A run that ended at once has no share to divide by."""
    info = time_info(dataclasses.replace(results, time_split_s={"total": 0.0}))
    assert (info.parts, info.useful) == ((), 0.0)


def test_trial_states_are_counted(results: RunResults) -> None:
    """Every trial is counted once."""
    assert sum(count for _, count in trial_states(results)) == len(results.trials)
    assert {state for state, _ in trial_states(results)} == {"complete", "over a limit"}


def test_schemes_in_words() -> None:
    """Counts go from wide to narrow; a single scheme is spelt out."""
    schemes = {"a": "int4:gptq", "b": "int8:mse", "c": "int8:nearest", "d": "fp32"}
    assert schemes_text({k: Scheme.parse(v) for k, v in schemes.items()}) == "fp32 ×1, int8 ×2, int4 ×1"
    assert scheme_words(Scheme.parse("int4:mse:block32")) == (
        "int4 weights (mse, one scale per 32 weights), floating activations"
    )
    assert scheme_words(Scheme.parse("fp32")) == "fp32"


def test_names_are_escaped_for_plotly(tmp_path: Path) -> None:
    """Plotly reads markup in labels, so a layer's name arrives as text."""
    folder = synthetic.feasible_run(tmp_path)
    for name in ("measurement.json", "trials.csv", "sensitivity.csv"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("conv1", "<b>&x"))
    assert json.loads((folder / "measurement.json").read_text())["model"]["layers"][0]["name"] == "<b>&x"
    results = RunResults.load(folder)
    assert heatmap_info(results).layers[0] == "&lt;b&gt;&amp;x"
    assert "<b>&lt;b&gt;&amp;x</b>" in heatmap_info(results).tooltips[0][0]
    assert sensitivity_info(results.scores).groups[0] == "&lt;b&gt;&amp;x"
