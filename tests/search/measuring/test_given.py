"""Runs that are given a file: every size, latency and accuracy is compared with it, not with its normalised form."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bitfront.core import Artifact, BackendError, Constraints, UsageError
from bitfront.report.results import RunResults
from bitfront.search.measuring.given import open_given
from bitfront.search.options import RunOptions
from bitfront.search.results.summary import print_summary
from tests.search import toy
from tests.search.toy_runs import Elsewhen, Heard, elsewhere, options, search

# Fixtures are found by name in the module.
__all__ = ["elsewhere"]

FILE = toy.file()  # of 4500 bytes and 4 ms a sample, where FP32 is written as 5500 bytes of 5 ms
FP32 = toy.file("fp32", 5500)


def quick_file() -> toy.ToyBackend:
    """A runtime on which the file as given is faster than anything made of it."""
    return toy.ToyBackend(cost_ms=toy.COST_MS | {"given": 0.1})


def measured(folder: Path) -> dict[str, Any]:
    """``measurement.json``."""
    found: dict[str, Any] = json.loads((folder / "measurement.json").read_text())
    return found


def printed(folder: Path) -> str:
    """What the command line prints of a run."""
    stream = io.StringIO()
    print_summary(folder, stream, quiet=False)
    return stream.getvalue()


def test_ratios_are_to_the_file_as_given(tmp_path: Path) -> None:
    """What is smaller and faster than its FP32 form is a point of its own; ratios agree with the files on disk."""
    outcome = search(options(tmp_path / "run", Constraints(max_drop=0.05)), lowerer=toy.ToyLowerer(given=FILE))
    data, files = measured(outcome.folder), outcome.folder / "models"
    assert (data["reference"], data["baselines"][:2]) == ("given", ["given", "fp32"])
    assert (files / "given.onnx").read_bytes() == FILE
    given, points = data["given"], data["points"]
    assert given["size_bytes"] == points["given"]["size_bytes"] == len(FILE)
    assert (points["given"]["config"], points["given"]["layers"], points["given"]["held"]) == (None, {}, True)
    assert points["given"]["latency"]["ratio"] == 1.0
    results = RunResults.load(outcome.folder)
    for id_, point in points.items():
        assert point["size_bytes"] == (outcome.folder / point["model"]).stat().st_size
        spent = 4.0 if id_ == "given" else toy.latency_ms(point["layers"])
        assert point["latency"]["ratio"] == pytest.approx(spent / 4.0, rel=1e-6)
        assert point["latency"]["ratio"] == pytest.approx(point["latency"]["median_ms"] / given["latency"]["median_ms"])
    assert points["fp32"]["latency"]["ratio"] == pytest.approx(1.25)
    ratios = [trial.ratio for trial in results.trials if trial.origin == "baseline"]
    assert ratios == pytest.approx([1.25, 1.25, 0.5, 0.5])
    text = printed(outcome.folder)
    row = next(line for line in text.splitlines() if line.split()[:1] == ["fp32"])
    assert "1.25 ×" in row
    assert "1.22 ×" in row
    assert "paired with FP32" not in text
    assert "paired with the network as given" in text


@pytest.mark.parametrize("given", [FP32, toy.file("fp32", 5510), None], ids=["same bytes", "0.2 % larger", "none"])
def test_fp32_stands_for_a_file_that_makes_no_difference(tmp_path: Path, given: bytes | None) -> None:
    """One row suffices, and nothing is left of the file; sizes are still divided by its own."""
    outcome = search(options(tmp_path / "run"), lowerer=toy.ToyLowerer(given=given))
    data = measured(outcome.folder)
    assert (data["reference"], data["baselines"][0]) == ("fp32", "fp32")
    assert "given" not in data["points"]
    assert not (outcome.folder / "models" / "given.onnx").exists()
    assert data["given"]["size_bytes"] == len(given or FP32)
    assert data["given"]["latency"] is not None
    assert data["given"]["accuracy"] == data["points"]["fp32"]["accuracy"]
    assert data["points"]["fp32"]["latency"]["ratio"] == pytest.approx(1.0)


def test_drop_counts_from_the_file_as_given(tmp_path: Path) -> None:
    """A file that is itself as inaccurate as INT8 allows INT8 with no drop at all."""
    coarse = toy.file("int8:nearest", 5500)
    outcome = search(options(tmp_path / "run", Constraints(max_drop=0.0)), lowerer=toy.ToyLowerer(given=coarse))
    data = measured(outcome.folder)
    assert data["given"]["accuracy"]["value"] == data["points"]["int8"]["accuracy"]["value"]
    assert data["points"]["int8"]["accuracy"]["value"] < data["points"]["fp32"]["accuracy"]["value"]
    assert data["points"]["int8"]["feasible"]
    assert not data["points"]["int4"]["feasible"]
    plain = measured(search(options(tmp_path / "plain", Constraints(max_drop=0.0))).folder)
    assert not plain["points"]["int8"]["feasible"]


def test_file_that_nothing_improves_is_recommended_without_a_config(tmp_path: Path, elsewhere: Elsewhen) -> None:
    """Smaller and faster than whatever was made of it: exit 0, and what is printed says that there is no config."""
    elsewhere.runtime = quick_file
    backend = quick_file()
    lowerer = toy.ToyLowerer(given=toy.file(size_bytes=300))
    outcome = search(options(tmp_path / "run", Constraints(max_drop=0.05)), backend, lowerer)
    assert (outcome.exit_code, outcome.recommended) == (0, "given")
    text = printed(outcome.folder)
    assert "given meets every limit: " in text
    assert f"model   {outcome.folder}/models/given.onnx" in text
    assert "config  none: the file as given" in text
    reasons = [trial.reason for trial in RunResults.load(outcome.folder).trials]
    assert any(reason.startswith("no more accurate than given on ") for reason in reasons)


def test_file_that_misses_a_limit_is_not_recommended(tmp_path: Path, elsewhere: Elsewhen) -> None:
    """It is judged like any point."""
    elsewhere.runtime = quick_file
    backend = quick_file()
    lowerer = toy.ToyLowerer(given=toy.file(size_bytes=3000))
    outcome = search(options(tmp_path / "run", Constraints(size_bytes=2000)), backend, lowerer)
    assert not outcome.points["given"].feasible
    assert outcome.recommended not in (None, "given")
    lost = search(options(tmp_path / "lost", Constraints(size_bytes=200)), backend, lowerer)
    assert (lost.exit_code, lost.recommended) == (3, None)


def test_backend_that_refuses_the_file_compares_with_fp32(tmp_path: Path) -> None:
    """One warning names the file and the reason; ratios, texts and the record are of FP32."""

    def refuse(schemes: Mapping[str, str]) -> str:
        return "operator set 6 is too old" if "given" in schemes.values() else ""

    heard = Heard()
    outcome = search(options(tmp_path / "run"), toy.ToyBackend(refuse), toy.ToyLowerer(given=FILE), heard=heard)
    (warning,) = heard.warnings
    assert warning.startswith("fake does not run 'toy.onnx' as given (operator set 6 is too old)")
    data = measured(outcome.folder)
    assert (data["reference"], data["given"]["refused"]) == ("fp32", "operator set 6 is too old")
    assert data["given"]["size_bytes"] == data["points"]["fp32"]["size_bytes"]
    assert data["points"]["fp32"]["latency"]["ratio"] == 1.0
    assert "paired with FP32" in printed(outcome.folder)


def test_file_that_compiles_and_does_not_run_is_refused_too() -> None:
    """As one that wants its inputs in another type: the reason is kept, and FP32 stands for it."""

    class Broken(toy.ToyModel):
        def run(self, inputs: object) -> Any:
            del inputs
            raise BackendError("unexpected input type")

    def compile_(artifact: Artifact) -> Any:
        kind = Broken if artifact.data == FILE else toy.ToyModel
        return kind(schemes=json.loads(artifact.data), backend=toy.ToyBackend())

    fp32 = Artifact.onnx(FP32)
    found = open_given(Artifact.onnx(FILE), fp32, compile_, {"x": toy.workload().calibration["x"][:1]})
    assert (found.refused, found.is_fp32, found.model) == ("unexpected input type", True, fp32)
    assert not open_given(fp32, fp32, compile_, {}).refused


def test_fp32_that_does_not_hold_leaves_the_file_as_given(tmp_path: Path, elsewhere: Elsewhen) -> None:
    """Where nothing that was made could be timed twice alike, the file itself is still a point, and recommended."""
    elsewhere.slower = dict.fromkeys(("fp32", "fp16", "int8", "int4"), 1.2)
    lowerer = toy.ToyLowerer(given=toy.file("fp32", 5510))
    outcome = search(options(tmp_path / "run", Constraints(latency_ms=6.0), trials=4), lowerer=lowerer)
    assert (outcome.exit_code, outcome.recommended) == (0, "given")
    assert {id_ for id_, point in outcome.points.items() if point.latency_reproduced} == {"given"}
    tight = search(options(tmp_path / "tight", Constraints(latency_ms=3.0), trials=4), lowerer=lowerer)
    assert (tight.exit_code, tight.recommended, dict(tight.nearest)) == (3, None, {"latency": "given"})
    text = printed(tight.folder)
    assert "No point whose latency was reproduced meets every limit" in text
    assert "met" not in [cell for line in text.splitlines() for cell in line.split("  ")]


def test_drop_becomes_a_floor() -> None:
    """Once the given network's accuracy is known; the higher of two floors counts, and other limits stay."""
    budget = Constraints(latency_ms=3.0, min_accuracy=0.8, max_drop=0.05)
    assert budget.absolute(0.9) == Constraints(latency_ms=3.0, min_accuracy=0.9 - 0.05)
    assert budget.absolute(0.82) == Constraints(latency_ms=3.0, min_accuracy=0.8)
    assert Constraints(size_bytes=5).absolute(0.9) == Constraints(size_bytes=5)


def interrupting(at: int) -> Callable[[int], None]:
    """Ctrl-C at the n-th run of a model."""

    def on_run(number: int) -> None:
        if number == at:
            raise KeyboardInterrupt

    return on_run


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.95])
def test_interrupted_run_compares_with_the_file_as_far_as_known(tmp_path: Path, share: float) -> None:
    """Whenever it ends, what is written is readable, and resuming comes to what an uninterrupted run comes to."""

    def asked(name: str, *, resume: bool = False) -> RunOptions:
        return options(tmp_path / name, Constraints(max_drop=0.05), trials=6, resume=resume)

    lowerer, backend = toy.ToyLowerer(given=FILE), toy.ToyBackend()
    whole = search(asked("whole"), backend, lowerer)
    last = max(round(share * backend.runs), 1)
    try:
        stopped = search(asked("run"), toy.ToyBackend(on_run=interrupting(last)), lowerer)
    except KeyboardInterrupt:
        assert last == 1  # before there was a run
    else:
        assert stopped.exit_code == 130
        results = RunResults.load(stopped.folder)
        assert results.given is not None
        assert results.given.size_bytes == len(FILE)
        for point in results.points.values():
            assert point.model is not None
            assert (stopped.folder / point.model).stat().st_size == point.size_bytes
    again = search(asked("run", resume=True), lowerer=lowerer)
    assert again.recommended == whole.recommended
    assert set(again.points) == set(whole.points)


def test_resume_measures_the_file_no_second_time(tmp_path: Path) -> None:
    """Its timing and its scores are kept like those of any artifact."""
    lowerer = toy.ToyLowerer(given=FILE)
    search(options(tmp_path / "run"), lowerer=lowerer)
    backend = toy.ToyBackend()
    search(options(tmp_path / "run", resume=True), backend, lowerer)
    assert backend.runs == 1  # the look whether the file runs at all


def test_resume_with_another_file_is_refused(tmp_path: Path) -> None:
    """Two files of one normalised form: what was timed beside the one says nothing of the other."""
    search(options(tmp_path / "run"), lowerer=toy.ToyLowerer(given=FILE))
    with pytest.raises(UsageError, match="about something else; different: the file as given"):
        search(options(tmp_path / "run", resume=True), lowerer=toy.ToyLowerer(given=toy.file(size_bytes=4400)))
