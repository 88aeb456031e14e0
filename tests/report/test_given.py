"""What points are compared with: the given network, told apart from its FP32 form, written and read back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitfront.core import AccuracyStats, Constraints, DataError, LatencyStats
from bitfront.core.given_network import GivenNetwork, differs
from bitfront.report.html import facts, page
from bitfront.report.render import render
from bitfront.report.results import RunResults
from bitfront.report.summary import limit_texts, point_text, summarise_run
from bitfront.report.tables import accuracy_difference, size_ratio, standing
from bitfront.report.tooltips import point_tooltip
from bitfront.report.view_models import heatmap_info
from tests.report import synthetic


def timing(ratio: float, error: float = 0.001) -> LatencyStats:
    """Paired with a reference of 4 ms."""
    return LatencyStats(
        median_ms=4 * ratio, p90_ms=4 * ratio, ci_low_ms=4 * ratio, ci_high_ms=4 * ratio, ratio=ratio,
        ratio_low=ratio - error, ratio_high=ratio + error, rounds=9, threads=1, batch_size=1,
    )  # fmt: skip


def accuracy(value: float, half: float) -> AccuracyStats:
    return AccuracyStats(value=value, ci_low=value - half, ci_high=value + half, samples=100)


GIVEN = GivenNetwork(
    size_bytes=1000, latency=timing(1), search_latency=timing(1), accuracy=accuracy(0.9, 0.01),
    search_accuracy=accuracy(0.9, 0.01),
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "held", "expected"),
    [
        pytest.param({}, True, False, id="the same"),
        pytest.param({"size_bytes": 1010}, True, False, id="1 % larger"),
        pytest.param({"size_bytes": 1011}, True, True, id="more than 1 % larger"),
        pytest.param({"size_bytes": 900}, True, True, id="smaller"),
        pytest.param({"latency": timing(1.1), "search_latency": timing(1.05)}, True, True, id="slower twice"),
        pytest.param({"latency": timing(0.9), "search_latency": timing(0.95)}, True, True, id="faster twice"),
        pytest.param({"latency": timing(1.1)}, True, False, id="slower once"),
        pytest.param({"latency": timing(1.1), "search_latency": timing(0.9)}, True, False, id="slower and faster"),
        pytest.param({"latency": timing(1.02), "search_latency": timing(1.02)}, True, False, id="2 % slower"),
        pytest.param({"latency": timing(1.1, 0.2), "search_latency": timing(1.1, 0.2)}, True, False, id="by noise"),
        pytest.param({"latency": None, "search_latency": timing(1.1)}, None, True, id="slower in the search alone"),
        pytest.param({"latency": None, "search_latency": None}, None, False, id="not timed"),
        pytest.param({"accuracy": accuracy(0.89, 0.01)}, True, False, id="perhaps less accurate"),
        pytest.param({"accuracy": accuracy(0.85, 0.01)}, True, True, id="less accurate"),
        pytest.param({}, False, True, id="not reproduced"),
    ],
)
def test_fp32_stands_for_the_given_network_where_nothing_tells_them_apart(
    change: dict[str, Any], held: bool | None, expected: bool
) -> None:
    """By size, by latency in every timing, by accuracy; never by what one timing or one interval says."""
    assert differs(GIVEN, replace(GIVEN, **change), latency_reproduced=held) is expected


def test_given_network_reads_back_what_was_written() -> None:
    """Measured or not, refused or not."""
    for network in (GIVEN, GivenNetwork(size_bytes=7), replace(GIVEN, latency=None, refused="it is too old")):
        assert GivenNetwork.from_json(json.loads(json.dumps(network.to_json()))) == network


def written(folder: Path, given: dict[str, Any] | None, **data: Any) -> RunResults:
    """The synthetic run with another given network."""
    folder = synthetic.feasible_run(folder)
    path = folder / "measurement.json"
    found = json.loads(path.read_text()) | data
    found.pop("given") if given is None else found["given"].update(given)
    path.write_text(json.dumps(found))
    return RunResults.load(folder)


@pytest.mark.parametrize(
    "broken", [{"size_bytes": 0}, {"size_bytes": None}, {"accuracy": {}}, {"latency": timing(math.inf).to_json()}]
)
def test_damaged_given_network_is_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    """No ratio is ever taken to a number that was misread."""
    with pytest.raises(DataError, match=r"measurement\.json' is damaged"):
        written(tmp_path, broken)


def test_everything_is_compared_with_the_given_network(tmp_path: Path) -> None:
    """Half the size of its FP32 form and a point more accurate: ratios and differences say so, and whose they are."""
    results = written(tmp_path / "run", {})
    assert results.given is not None
    assert results.given.accuracy is not None
    fp32 = results.points["fp32"]
    better = replace(results.given.accuracy, value=results.given.accuracy.value + 0.01)
    results = replace(results, given=replace(results.given, size_bytes=fp32.size_bytes // 2, accuracy=better))
    assert size_ratio(results, fp32) == pytest.approx(2.0)
    assert accuracy_difference(results, fp32) == pytest.approx(-0.01)
    assert "(1.00 × given)" in point_text(results, fp32)
    assert "2.00 × given" in point_tooltip(results, fp32)
    assert ("Compared with", "the file as given, 186 kB") in facts(results)
    limited = replace(results, budget=replace(results.budget, max_drop=0.01))
    assert "accuracy within 1.00 points of the given network" in limit_texts(limited)
    assert limited.accuracy_limit == pytest.approx(better.value - 0.01)


def test_run_older_than_the_given_network_compares_with_fp32(tmp_path: Path) -> None:
    """Its ratios are to FP32, and every text says so; the report is written all the same."""
    results = written(tmp_path / "run", None)
    assert (results.given, results.versus) == (None, "FP32")
    assert size_ratio(results, results.points["fp32"]) == 1.0
    text = render(tmp_path / "run").read_text()
    assert "(0.30 × FP32)" in point_text(results, results.points["int8"])
    assert "lat. ratio and size ratio are to the FP32 network" in text
    assert "as given" not in text.split("</script>")[-3]


def test_given_network_that_did_not_run_is_told_of(tmp_path: Path) -> None:
    """The page says that ratios are to FP32 instead, and why."""
    results = written(tmp_path, {"refused": "opset 6 <is> too old"})
    assert results.versus == "FP32"
    assert "does not run the file as given (opset 6 &lt;is&gt; too old)" in page(results)
    assert any(name == "Compared with" and value.startswith("its FP32 form") for name, value in facts(results))


def test_given_network_as_a_point_has_neither_config_nor_precisions(tmp_path: Path) -> None:
    """It is a row like any other, of which no layer was decided; the map of precisions goes without it."""
    data, rows = synthetic.measurement(budget=Constraints(latency_ms=5.0))
    fp32 = data["points"]["fp32"]
    given = fp32 | {"id": "given", "size_bytes": 90_000, "layers": {}, "config": None, "model": "models/given.onnx"}
    data["points"] = {"given": given | {"text": "the file as given"}} | data["points"]
    data.update(
        reference="given", baselines=["given", *data["baselines"]], front=["given", *data["front"]],
        given=synthetic.given_json(given),
    )  # fmt: skip
    results = RunResults.load(synthetic.write_run(tmp_path, data, rows))
    assert "given" not in heatmap_info(results).points
    assert len(heatmap_info(results).layers) == len(results.layers)
    text = page(results)
    assert "“given” is the file as it was given" in text
    assert 'title="config: none, it is the file as given"' in text
    assert 'href="./models/given.onnx"' in text


def test_row_of_a_point_that_did_not_hold_does_not_say_met(tmp_path: Path) -> None:
    """Where such points alone are within every budget, neither the table nor the sentence above it says otherwise."""
    results = written(tmp_path, {}, recommended=None)
    points = {
        id_: replace(point, feasible=id_ in ("int8", "int4"), latency_reproduced=id_ not in ("int8", "int4"))
        for id_, point in results.points.items()
    }
    results = replace(results, points=points)
    assert standing(points["int8"], limited=True) == "latency not reproduced"
    found = summarise_run(results)
    assert found.headline == "No point whose latency was reproduced meets every limit"
    assert found.details[0].endswith("a latency not reproduced in a fresh process: int8, int4.")
    noisy = replace(results, points={id_: replace(point, latency_reproduced=False) for id_, point in points.items()})
    assert summarise_run(noisy).headline.startswith("No latency was reproduced in a fresh process")
    missed = {id_: replace(point, feasible=False) for id_, point in points.items()}
    assert summarise_run(replace(results, points=missed)).headline == "No point meets every limit"
