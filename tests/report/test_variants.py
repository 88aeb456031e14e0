from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bitfront.core import DataError, top1
from bitfront.core.training_info import TrainInfo
from bitfront.core.variant_info import PrunedGroup, StepInfo, VariantInfo
from bitfront.report.front_plot import draw_front
from bitfront.report.html import facts
from bitfront.report.render import render
from bitfront.report.results import RunResults
from bitfront.report.summary import summarise_run
from bitfront.report.tables import COLUMNS, NETWORK_COLUMNS, columns, front_rows, table
from bitfront.report.variant_details import halving_rows, training_text, variant_details
from bitfront.report.view_models import Cost, front_info, heatmap_info
from tests.report import synthetic, synthetic_passes
from tests.report.synthetic_passes import NETWORKS, STUDENT, TRAIN, prune_network

HEADINGS = COLUMNS


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    return RunResults.load(synthetic_passes.passes_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    return RunResults.load(synthetic.feasible_run(tmp_path_factory.mktemp("plain")))


def _steps(*names: str) -> tuple[StepInfo, ...]:
    return tuple(StepInfo(name=name, steps=1, seconds=1.0, loss=None) for name in names)


def _row(results: RunResults, id_: str) -> dict[str, str]:
    """Column → cell of one point; columns that are there twice keep the last."""
    return dict(zip(columns(results), next(row.cells for row in table(results) if row.id == id_), strict=True))


def test_networks_and_training_are_read_in_full(results: RunResults) -> None:
    """What was written comes back, through JSON as well; a point of the given network has none."""
    assert {id_: point.network for id_, point in results.points.items() if point.network} == NETWORKS
    assert results.points["int8"].network is None
    assert results.train == TRAIN
    for network in NETWORKS.values():
        assert VariantInfo.from_json(json.loads(json.dumps(network.to_json()))) == network
    assert TrainInfo.from_json(json.loads(json.dumps(TRAIN.to_json()))) == TRAIN
    assert len(results.sparsities) == 6 * 3 + 2
    assert results.trials[-1].variant.startswith("5f3a")
    assert dict(results.trials[-4].pruning) == {group.name: 1 - group.kept_fraction for group in NETWORKS["p64"].pruned}


def test_runs_without_passes_have_none_of_it(plain: RunResults) -> None:
    """Files that know no networks are read as before, and nothing about networks is shown."""
    assert plain.train is None
    assert plain.sparsities == ()
    assert {point.network for point in plain.points.values()} == {None}
    assert columns(plain) == HEADINGS
    assert {row.variant_cells for row in table(plain)} == {()}
    compressed = {id_: dataclasses.replace(p, compressed_bytes=1) for id_, p in plain.points.items()}
    assert columns(dataclasses.replace(plain, points=compressed)) == HEADINGS
    assert variant_details(plain) == ()
    names = [trace.name for trace in draw_front(front_info(plain, Cost.LATENCY)).data]
    assert names == [
        "trials",
        "other finalists",
        "best so far along the axis",
        "Pareto front",
        "baselines",
        "recommended",
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda n: n.pop("macs"), "points.p62.network.macs: is missing"),
        (lambda n: n.update(train_s="long"), 'network.train_s: expected a valid number, got "long"'),
        (lambda n: n["pruned"][0].update(kept=33), "expected 0 to 32 channels kept, got 33"),
        (lambda n: n["steps"][1].update(loss=float("nan")), r"network.steps\[1\].loss: expected a finite number"),
        (lambda n: n.update(fp32_accuracy=float("inf")), "network.fp32_accuracy: expected a finite number"),
    ],
)
def test_damaged_networks_are_refused(tmp_path: Path, damage: Callable[[dict[str, Any]], object], message: str) -> None:
    """Each damage is a DataError that names the file and what is wrong."""
    folder = synthetic_passes.passes_run(tmp_path)
    data = json.loads((folder / "measurement.json").read_text())
    damage(data["points"]["p62"]["network"])
    (folder / "measurement.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=rf"measurement\.json' is damaged: .*{message}"):
        RunResults.load(folder)


def test_damaged_sparsities_are_refused(tmp_path: Path) -> None:
    """The row is named."""
    path = synthetic_passes.passes_run(tmp_path) / "sparsity.csv"
    path.write_text(path.read_text().replace("0.25", "a quarter"))
    with pytest.raises(DataError, match=r"sparsity\.csv' is damaged: could not convert .*\(row 2\)"):
        RunResults.load(tmp_path)


@pytest.mark.parametrize(
    ("steps", "kind", "artifact"),
    [
        (("prune",), "pruned", False),
        (("prune", "sparse", "distil"), "pruned", False),
        (("student", "distil", "prune", "qat"), "student", True),
        (("sparse", "distil"), "sparse", False),
        (("distil",), "distilled", False),
        (("qat",), "given", True),
    ],
)
def test_files_that_do_not_say_the_kind_are_read_by_their_passes(
    steps: tuple[str, ...], kind: str, artifact: bool
) -> None:
    """As earlier versions wrote them: the most telling pass decides, names are those of today."""
    data = json.loads(json.dumps(STUDENT.to_json()))
    data["steps"] = [
        json.loads(json.dumps(step.to_json())) | {"name": name}
        for step, name in zip(_steps(*steps), steps, strict=True)
    ]
    del data["kind"], data["artifact_trained"]
    network = VariantInfo.from_json(data)
    assert (network.kind, network.artifact_trained, network.trained_steps) == (kind, artifact, len(steps))
    assert "distil" not in [step.name for step in network.steps]


def test_a_file_says_the_kind_and_another_pass_has_its_own(results: RunResults) -> None:
    """A kind that this program does not know is drawn like any other, in a look of its own."""
    network = dataclasses.replace(STUDENT, steps=_steps("mine:Clip", "qat"), kind="clipped", artifact_trained=False)
    assert VariantInfo.from_json(json.loads(json.dumps(network.to_json()))) == network
    point = dataclasses.replace(results.points["p66"], network=network)
    changed = dataclasses.replace(results, points={**results.points, "p66": point})
    names = [trace.name for trace in draw_front(front_info(changed, Cost.LATENCY)).data]
    assert [name for name in names if name.startswith("front: ")][-1] == "front: clipped"


@pytest.mark.parametrize(("channels", "kept"), [(8, 9), (8, -1), (0, 0)])
def test_impossible_groups_are_refused(channels: int, kept: int) -> None:
    """A group keeps between none and all of its channels."""
    with pytest.raises(ValueError, match=f"prune group 'a': expected 0 to {channels} channels kept, got {kept}"):
        PrunedGroup(name="a", branch=False, channels=channels, kept=kept)


def test_table_tells_the_networks_apart(results: RunResults) -> None:
    """Network, training and the accuracy recovered; a file that compresses well says so."""
    assert columns(results) == (*HEADINGS[:9], "zip size", "network", *HEADINGS[9:])
    assert (_row(results, "p67")["network"], _row(results, "p67")["zip size"]) == ("2:4", "61.8 kB")
    assert (_row(results, "int8")["network"], _row(results, "p62")["zip size"]) == ("given", "–")
    cells = {row.id: dict(zip(NETWORK_COLUMNS, row.variant_cells, strict=True)) for row in table(results)}
    assert cells["int8"] == {"training": "–", "accuracy recovered": "–"}
    assert cells["p66"] == {"training": "48 s", "accuracy recovered": "10.20 → 95.80 %"}
    assert front_rows(results) == tuple(row.cells for row in table(results))
    assert summarise_run(results).headline.startswith("p62 (pruned) meets every limit: 1.78 ms")


def test_unscored_recoveries_have_gaps(results: RunResults) -> None:
    """An accuracy that was not scored is a dash, not a number."""
    for before, after, text in ((None, 0.5, "– → 50.00 %"), (0.5, None, "50.00 % → –"), (None, None, "–")):
        network = dataclasses.replace(STUDENT, untrained_accuracy=before, fp32_accuracy=after)
        point = dataclasses.replace(results.points["p66"], network=network)
        changed = dataclasses.replace(results, points={**results.points, "p66": point})
        assert next(row.variant_cells[-1] for row in table(changed) if row.id == "p66") == text


def test_pareto_csv_has_the_networks(tmp_path: Path) -> None:
    """Whole numbers stay whole beside points without."""
    render(synthetic_passes.passes_run(tmp_path))
    frame = pd.read_csv(tmp_path / "pareto.csv", dtype=str).set_index("id")
    assert frame.loc["p66", "network"] == "student small"
    assert (frame.loc["p66", "macs"], frame.loc["p66", "train_steps"]) == ("6200000", "900")
    assert frame.loc["p62", "pruned"].split()[0] == "layer1.0.conv1:16/32"
    assert frame.loc["p62", "pruned"].split()[-1] == "layer2.4:0/1"
    assert (frame.loc["p64", "passes"], frame.loc["fp16", "network"]) == ("prune distill qat", "given")
    assert frame.loc["fp16", "macs_share"] == "1.0"


def test_fronts_have_a_mark_for_each_kind(results: RunResults) -> None:
    """One legend entry a kind of network, quantisation-aware training with a dot, trials of variants apart."""
    info = front_info(results, Cost.LATENCY)
    traces = {trace.name: trace for trace in draw_front(info).data}
    fronts = [name for name in traces if name.startswith("front: ")]
    assert fronts == ["front: given", "front: pruned", "front: pruned, QAT", "front: sparse", "front: student"]
    assert sorted(x for name in fronts for x in traces[name].x) == [mark.x for mark in info.front]
    assert len({traces[name].marker.symbol for name in fronts}) == 5
    assert traces["front: pruned, QAT"].marker.symbol == "triangle-down-dot"
    assert (len(info.tried_variants), len(traces["trials on model variants"].x)) == (7, 7)
    tooltip = next(mark.tooltip for mark in info.front if mark.label == "p64")
    for part in (
        "model variant pruned",
        "0.61 × multiply-adds, 0.37 × parameters",
        "5 groups narrowed, 1 branch removed",
    ):
        assert part in tooltip
    assert "training 2 min 15 s, 720 steps; in FP32 61.96 → 96.61 %" in tooltip
    assert "model variant 5f3a5f3a<br>5 groups narrowed, 1 branch removed" in info.tried_variants[3].tooltip


def test_heatmap_leaves_gaps_for_layers_that_are_gone(results: RunResults) -> None:
    """A removed branch has no precision, and hides its row for nobody else; a student of other layers has no column."""
    info = heatmap_info(results)
    assert info.layers == synthetic.layer_names(9)
    assert (info.without_layers, "p66" in info.points) == (("p66",), False)
    row, column = info.layers.index("layer2.4.conv1"), info.points.index("p62")
    assert info.precisions[row][column] is None
    assert "not in this network" in info.tooltips[row][column]
    assert None not in info.precisions[info.layers.index("conv1")]
    assert info.points[info.recommended or 0] == "p62"


def test_points_of_one_network_share_its_details(results: RunResults) -> None:
    """Each network is told once, with its passes, what it lost and the accuracy recovered."""
    shared = dataclasses.replace(results.points["p61"], network=NETWORKS["p62"])
    details = variant_details(dataclasses.replace(results, points={**results.points, "p61": shared}))
    assert [detail.points for detail in details] == [("p66",), ("p65",), ("p64",), ("p62", "p61"), ("p67",)]
    detail = details[3]
    assert (detail.recommended, detail.branches) == (True, ("layer2.4",))
    assert detail.steps == (("prune", "–", "1.4 s", "–"), ("distill", "600", "74 s", "0.0831"))
    assert detail.groups[:2] == (("layer1.0.conv1", "32 → 16", "50%"), ("layer1.1.conv1", "32 → 24", "75%"))
    assert detail.summary == (
        "0.66 × multiply-adds, 0.44 × parameters; 5 groups narrowed, 1 branch removed; "
        "training 74 s, 600 steps; in FP32 67.03 → 96.72 %"
    )


def test_training_in_words() -> None:
    """Time and budget, networks, promotions; of the halving the best of each rung comes first."""
    assert training_text(TRAIN) == "7 min 1 s of 10 min 0 s of training; 9 model variants made, 5 trained, 3 promotions"
    free = dataclasses.replace(TRAIN, budget_s=None, networks=1, promoted=1)
    assert training_text(free) == "7 min 1 s of training; 1 model variant made, 5 trained, 1 promotion"
    assert halving_rows(TRAIN, top1)[:4] == (
        ("0", "pruned 0.81 ×", "60", "96.10 %", "trained on"),
        ("0", "pruned 0.62 ×", "60", "94.70 %", "trained on"),
        ("0", "pruned 0.31 ×", "60", "93.00 %", "trained on"),
        ("0", "pruned 0.55 ×", "60", "90.10 %", "stopped"),
    )
    unscored = dataclasses.replace(TRAIN, history=(dataclasses.replace(TRAIN.history[0], value=None),))
    assert halving_rows(unscored, top1) == (("0", "pruned 0.81 ×", "60", "–", "trained on"),)


def test_facts_name_the_passes(results: RunResults) -> None:
    """They are part of what was asked for."""
    assert dict(facts(results))["Passes"] == "prune, distill, sparse, qat"


def test_a_network_that_lost_nothing_says_so() -> None:
    """Neither groups nor training: the words do not claim any."""
    network = dataclasses.replace(prune_network(()), steps=_steps(), train_s=0.0, kind="")
    assert (network.pruned, network.kind) == ((), "given")
