"""Run folders from elsewhere: whatever stands in their files is refused by name, or shown as text, and never fails."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bitfront.core import Constraints, DataError, EngineError, UsageError
from bitfront.report.comparison import Comparison
from bitfront.report.html import page
from bitfront.report.render import render_comparison
from bitfront.report.results import RunResults
from tests.odd_json import SCRIPT, mutants
from tests.report import synthetic, synthetic_passes
from tests.report.test_comparison import write

RENDERED = 6  # pages take half a second each


def small_run(folder: Path) -> Path:
    return synthetic.write_run(
        folder, *synthetic.measurement(budget=Constraints(latency_ms=5.0, min_accuracy=0.75), blocks=1, trials=8)
    )


@pytest.mark.parametrize(
    ("make", "count"), [(small_run, 250), (synthetic_passes.passes_run, 80)], ids=["plain", "passes"]
)
def test_odd_measurements(make: Callable[[Path], Path], count: int, tmp_path: Path) -> None:
    """Each change is refused with the file's name, or gives a page in which nothing is run."""
    folder = make(tmp_path)
    path = folder / "measurement.json"
    accepted = []
    refused = []
    for mutant in mutants(path.read_text(), count, seed=5):
        path.write_text(mutant.text)
        try:
            accepted.append((mutant.id, RunResults.load(folder)))
        except EngineError as error:
            refused.append(error.message)
    assert [message for message in refused if "measurement.json'" not in message and ".csv'" not in message] == []
    assert len(refused) > 0.6 * count
    for id_, results in random.Random(1).sample(accepted, min(RENDERED, len(accepted))):
        assert "<script>alert" not in page(results), id_


def test_texts_are_escaped_everywhere(tmp_path: Path) -> None:
    """Every free text of the file at once: the page shows it, and runs none of it."""
    folder = synthetic_passes.passes_run(tmp_path)
    path = folder / "measurement.json"
    data = json.loads(path.read_text())
    for holder, keys in (
        (data, ("name", "created", "stopped")),
        (data["model"], ("source", "fingerprint")),
        (data["backend"], ("name", "dialect")),
        (data["backend"]["device"], (*data["backend"]["device"], SCRIPT)),
        (data["settings"], ("metric", "command", "passes", "calibration", SCRIPT)),
        *((layer, ("op", "group")) for layer in data["model"]["layers"]),
        *((point, ("origin", "text")) for point in data["points"].values()),
        *((row, ("network",)) for row in data["train"]["history"]),
    ):
        for key in keys:
            holder[key] = SCRIPT
    data["settings"]["withheld"] = {SCRIPT: SCRIPT}
    for point in data["points"].values():
        point["violations"] = [SCRIPT]
        point["layers"] = {SCRIPT + name: scheme for name, scheme in point["layers"].items()}
        if point.get("network"):
            point["network"]["label"] = SCRIPT
    data["model"]["layers"] = [{**layer, "name": SCRIPT + layer["name"]} for layer in data["model"]["layers"]]
    path.write_text(json.dumps(data))
    for name in ("trials.csv", "sensitivity.csv", "sparsity.csv"):
        text = (folder / name).read_text()
        (folder / name).write_text(re.sub(r"(?m)^(conv|layer|fc|stem)", "<script>alert(1)</script>", text))
    shown = page(RunResults.load(folder))
    assert "<script>alert" not in shown
    assert "\\u003cscript>alert" not in shown  # in a plot's JSON: plotly reads tags in labels and tooltips
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["points"]["int8"].update(model="../../x"), "points.int8.model: expected a relative path inside"),
        (lambda d: d["points"]["int8"].update(config="javascript:x"), "points.int8.config: expected a relative path"),
        (lambda d: d["points"]["int8"].update(engine="/etc/x"), "points.int8.engine: expected a relative path"),
        (lambda d: d["points"]["int8"].update(id="fp32"), 'points.int8.id: expected the same, got "fp32"'),
        (lambda d: d["points"]["int8"].update(size_bytes=-1), "points.int8.size_bytes: expected a number ≥ 0, got -1"),
        (lambda d: d["points"]["int8"].update(feasible="no"), "points.int8.feasible: expected a valid boolean"),
        (
            lambda d: d["points"]["int8"]["latency"].update(rounds=1.0),
            "points.int8.latency.rounds: expected a valid integer",
        ),
        (
            lambda d: d["points"]["int8"]["latency"].update(ci_low_ms=1e9),
            "points.int8.latency: an interval's lower end is",
        ),
        (lambda d: d["points"]["int8"].update(surprise=1), "points.int8.surprise: unknown field"),
        (lambda d: d["settings"].update(holdout_samples=None), "settings.holdout_samples: expected a valid integer"),
        (lambda d: d["settings"].update(withheld=["x"]), "settings.withheld: expected an object, got a list of 1"),
        (lambda d: d["settings"].update(seed=[float("inf")]), "settings.seed[0]: expected a finite number, got Inf"),
        (lambda d: d["backend"].update(device={}), "backend.device.device: is missing"),
        (lambda d: d["time_split_s"].pop("total"), "time_split_s.total: is missing"),
        (lambda d: d.update(name=7), "name: expected a valid string, got 7"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: Callable[[dict[str, object]], object], words: str) -> None:
    """Field, what was expected and what came."""
    folder = small_run(tmp_path)
    path = folder / "measurement.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=re.escape(f"measurement.json' is damaged: {words}")):
        RunResults.load(folder)


@pytest.mark.parametrize("name", ["measurement.json", "trials.csv"])
def test_what_is_no_file(tmp_path: Path, name: str) -> None:
    """A pipe is not waited for, and a file too large to be ours is not read."""
    folder = small_run(tmp_path)
    path = folder / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=rf"{name}' is damaged: expected a regular file, got a pipe"):
        RunResults.load(folder)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(DataError, match=rf"{name}' is damaged: expected at most [0-9,]+ bytes, got 1,073,741,824"):
        RunResults.load(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("trials.csv", "number", "number,number", "two columns have the name 'number'"),
        ("trials.csv", "number", "origin", "two columns have the name 'origin'"),
        ("trials.csv", "baseline,complete", "baseline", r"expected 12 cells, as in the first row, got 11 \(row 2\)"),
        ("trials.csv", "baseline,complete", "baseline,complete,", r"expected 12 cells, .*got 13 \(row 2\)"),
        ("trials.csv", "0,baseline", "-1,baseline", r"whole number of 0 or more, got \"-1\" \(row 2\)"),
        ("trials.csv", "0,baseline", "9999999999999999999,baseline", r"whole number of 0 or more, got .*\(row 2\)"),
        ("trials.csv", ",900,", ",inf,", r"whole number of 0 or more, got \"inf\" \(row \d+\)"),
        ("trials.csv", ",0.8,", ",1e999,", r"expected a finite number, got \"1e999\" \(row 2\)"),
        ("trials.csv", '"{""conv1""', '"[""conv1""', r"cannot be read as JSON: .* \(row 2\)"),
        ("trials.csv", '{""conv1""', '{""conv1"": ""fp32"", ""conv1""', r"conv1: the key comes twice \(row 2\)"),
        ("trials.csv", '""conv1"": ""fp32""', '""conv1"": 32', r"conv1: expected a layer scheme as text, got 32 \(row"),
        ("sensitivity.csv", "group", "\x00", "there is no column 'group'"),
        ("sensitivity.csv", "fc,fp32", '"fc,fp32', "unexpected end of data"),
    ],
)
def test_damaged_tables(tmp_path: Path, name: str, old: str, new: str, words: str) -> None:
    """Columns, cells and rows."""
    folder = small_run(tmp_path)
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=rf"{name}' is damaged: .*{words}"):
        RunResults.load(folder)


def test_long_cells_are_read(tmp_path: Path) -> None:
    """A network of thousands of layers has more schemes in a cell than Python's reader takes by itself."""
    folder = small_run(tmp_path)
    path = folder / "trials.csv"
    many = json.dumps({f"layer{number}.attention.output.dense": "int8:mse" for number in range(4000)})
    lines = path.read_text().splitlines()
    start = lines[1].index('"{')
    path.write_text("\n".join([lines[0], lines[1][:start] + '"' + many.replace('"', '""') + '"', *lines[2:], ""]))
    assert len(RunResults.load(folder).trials[0].schemes) == 4000


def test_a_folder_out_of_the_run_is_not_entered(tmp_path: Path) -> None:
    """A run on several backends has its parts inside its own folder, by name and in truth."""
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    write(run)
    outside.mkdir()
    (outside / "measurement.json").write_bytes((run / "a" / "measurement.json").read_bytes())
    path = run / "backends.json"
    data = json.loads(path.read_text())
    for folder in ("../outside", str(outside), "", ".", "a/../../outside"):
        path.write_text(json.dumps(data).replace('"folder": "a"', f'"folder": {json.dumps(folder)}'))
        with pytest.raises(DataError, match=r"backends\.json' is damaged: backends\[0\]\.folder: expected text of the"):
            Comparison.load(run)
    (run / "link").symlink_to(outside)
    path.write_text(json.dumps(data).replace('"folder": "a"', '"folder": "link"'))
    with pytest.raises(DataError, match="folder 'link' is a link out of the run's own"):
        Comparison.load(run)
    path.write_text(json.dumps(data).replace('"folder": "a"', '"folder": "b"'))
    with pytest.raises(DataError, match="backends: two have the folder 'b'"):
        Comparison.load(run)


def test_odd_comparisons(tmp_path: Path) -> None:
    """Each change of ``backends.json`` is refused by name, or gives a page in which nothing is run."""
    write(tmp_path)
    path = tmp_path / "backends.json"
    pages = 0
    for mutant in mutants(path.read_text(), 120, seed=2):
        path.write_text(mutant.text)
        try:
            Comparison.load(tmp_path)
            if mutant.value is SCRIPT or pages < 3:
                render_comparison(tmp_path)
                pages += 1
                assert "<script>alert" not in (tmp_path / "comparison.html").read_text(), mutant.id
        except (DataError, UsageError) as error:
            assert "backends.json" in error.message, mutant.id  # noqa: PT017 - accepting it is as good
    assert pages
