"""Several backends on the command line: lists, limits by name, and what is refused before anything runs."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bitfront.backends.fake import FakeBackend
from bitfront.core import BackendUnavailableError, Constraints
from bitfront.search.arguments import arguments, limit_arguments
from bitfront.search.commands import inspect, main_job, measure, sensitivity
from tests.search.command_line import enter, outcome, write_files


class Missing(FakeBackend):
    """A runtime that is not installed."""

    def __init__(self) -> None:
        super().__init__()
        raise BackendUnavailableError("runtime 'far' is not installed", "pip install 'bitfront[far]'")


class Late(FakeBackend):
    """A runtime whose absence shows at its first use."""

    def fingerprint(self) -> None:  # type: ignore[override]
        """Nothing to tell."""
        raise BackendUnavailableError("runtime 'far' is not installed", "pip install 'bitfront[far]'")


def budgets(*words: str, backends: tuple[str, ...] = ("ort-cpu", "openvino")) -> dict[str, Constraints]:
    """What the main job's budget options come to."""
    return limit_arguments.budgets_of(arguments.parse(main_job.build_parser(), list(words)), backends)


def test_one_number_is_every_backends() -> None:
    """Without a name a limit is everybody's."""
    found = budgets("--budget-ms", "5", "--max-drop", "0.01")
    assert found == dict.fromkeys(("ort-cpu", "openvino"), Constraints(latency_ms=5.0, max_drop=0.01))


def test_named_limits_are_each_backends_own() -> None:
    """A backend that a limit does not name does not have it; names may have dots and colons; spaces do not matter."""
    found = budgets("--budget-ms", "ort-cpu=5, openvino=4", "--budget-mb", "openvino=0.4", "--min-acc", "0.7")
    assert found == {
        "ort-cpu": Constraints(latency_ms=5.0, min_accuracy=0.7),
        "openvino": Constraints(latency_ms=4.0, size_bytes=400_000.0, min_accuracy=0.7),
    }
    assert budgets("--budget-ms", "m.x:Y=2", backends=("m.x:Y",)) == {"m.x:Y": Constraints(latency_ms=2.0)}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--budget-ms", "ort-cpu=5,openvin=4"], "'openvin' is not in this run; its backends: ort-cpu"),
        (["--budget-ms", "5,openvino=4"], "expected one number for all backends, or BACKEND=NUMBER for each, got '5,"),
        (["--budget-ms", "5,4"], "expected one number for all backends"),
        (["--budget-ms", "ort-cpu="], "expected one number for all backends"),
        (["--budget-ms", "ort-cpu=fast"], "--budget-ms: expected a number, got 'fast'"),
        (["--budget-ms", "ort-cpu=5,ort-cpu=4"], "--budget-ms: backend 'ort-cpu' has two limits"),
        (["--budget-ms", "ort-cpu=-1"], "--budget-ms: expected a positive number, got -1 for ort-cpu"),
        (["--min-acc", "ort-cpu=75"], "expected a fraction between 0 and 1 for top1, got ort-cpu=75"),
        (["--backend", "ort-cpu,ort-cpu"], "'ort-cpu' is named twice"),
        (["--backend", "ort-cpu,"], "expected names with a comma between, got 'ort-cpu,'"),
        (["--backend", "ort-cpu,ort-gpu"], "unknown backend 'ort-gpu'"),
        (["--backend", "ort-cpu,fake", "--budget-ms", "openvino=3"], "its backends: ort-cpu, fake"),
        (
            ["--backend", "ort-cpu,tests.search.multi_backend.test_options:Late"],
            "--backend: 'tests.search.multi_backend.test_options:Late': runtime 'far' is not installed\n"
            "hint: pip install 'bitfront[far]'",
        ),
        (
            ["--backend", "ort-cpu,tests.search.multi_backend.test_options:Missing"],
            "runtime 'far' is not installed",
        ),
    ],
)
def test_refused_before_anything_runs(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, a message that names what is wrong, and no folder."""
    files = write_files(tmp_path)
    enter(tmp_path, monkeypatch)
    assert outcome(files.argv("--out", "there", *words)) == 2
    assert expected in capsys.readouterr().err
    assert not Path("there").exists()


@pytest.mark.parametrize("command", [inspect, measure, sensitivity])
def test_other_commands_take_one_backend(command: object) -> None:
    """A list is refused by name, not looked up as one long name."""
    with pytest.raises(Exception, match="this command takes one backend, got 'ort-cpu,fake'"):
        arguments.backend_of(argparse.Namespace(backend="ort-cpu,fake"))
    assert "backend_of(args)" in Path(str(getattr(command, "__file__", ""))).read_text(encoding="utf-8")


@pytest.mark.parametrize(("first", "second"), [("fake", "fake,ort-cpu"), ("fake,ort-cpu", "fake")])
def test_resume_with_the_other_kind_is_refused(
    first: str, second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on one backend is no run on several, nor the other way round."""
    files = write_files(tmp_path)
    enter(tmp_path, monkeypatch)
    Path("there").mkdir()
    (Path("there") / ("backends.json" if "," in first else "run.json")).write_text("{}", encoding="utf-8")
    assert outcome(files.argv("--out", "there", "--resume", "--backend", second)) == 2
    assert f"is on {'several backends' if ',' in first else 'one backend'}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_run_on_two_backends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line to the files: both folders, the comparison, its report again, the exit status."""
    files = write_files(tmp_path)
    enter(tmp_path, monkeypatch)
    words = ["--backend", "ort-cpu,fake", "--trials", "5", "--precisions", "int8", "--sensitivity-samples", "8"]
    code = outcome(files.argv("--out", "there", *words, "--budget-ms", "fake=0.0001", "--quiet"))
    shown = capsys.readouterr().out
    assert code == 3
    assert "ort-cpu: " in shown
    assert "fake: No point meets every limit" in shown
    there = Path("there")
    for name in ("ort-cpu/report.html", "fake/report.html", "comparison.html", "comparison.csv", "summary.txt"):
        assert (there / name).is_file()
    page = (there / "comparison.html").read_text(encoding="utf-8")
    for name in ("fake/report.html", "comparison.html"):
        (there / name).unlink()
    assert outcome(["report", "there", "--quiet"]) == 0
    assert capsys.readouterr().out == shown
    assert (there / "comparison.html").read_text(encoding="utf-8") == page
    assert (there / "fake" / "report.html").is_file()
