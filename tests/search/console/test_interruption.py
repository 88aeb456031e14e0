"""Told to stop, by whatever signal at whatever moment: words, an exit status, and what is known in the report."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bitfront.report.results import RunResults
from bitfront.search import cli
from bitfront.search.console import interruption
from tests.search import toy
from tests.search.command_line import outcome, write_files
from tests.search.toy_runs import elsewhere, options, search

# Fixtures are found by name in the module.
__all__ = ["elsewhere"]

SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
ROOT = Path(__file__).resolve().parents[3]


def stop(number: int = signal.SIGTERM) -> None:
    """As another process would."""
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("search", "bitfront.search.inputs.loading.open_source"),
        ("search", "bitfront.search.inputs.loading.load"),
        ("search", "bitfront.search.inputs.validate_inputs.check_reference"),
        ("search", "bitfront.search.prepare.Evaluator"),
        ("sensitivity", "bitfront.sensitivity.score.score_sensitivities"),
        ("measure", "bitfront.backends.timing.time_paired"),
        ("inspect", "bitfront.lowering.lowerer.Lowerer"),
    ],
)
def test_every_command_ends_with_the_signal_s_status(
    command: str,
    place: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before there is anything to report: one word, no traceback, handlers as they were, no lock left."""
    files, number = write_files(tmp_path), getattr(signal, name)
    source = ["--model", str(files.net), "--calib", str(files.calib)]
    argv = {
        "search": files.argv("--backend", "fake", "--out", str(tmp_path / "run")),
        "sensitivity": ["sensitivity", *source, "--out", str(tmp_path / "scores")],
        "measure": ["measure", str(files.net), "--backend", "fake"],
        "inspect": ["inspect", str(files.net)],
    }[command]
    module, _, attribute = place.rpartition(".")
    __import__(module)
    before = [signal.getsignal(getattr(signal, other)) for other in SIGNALS]
    monkeypatch.setattr(sys.modules[module], attribute, lambda *_, **__: stop(number))
    assert outcome(argv) == SIGNALS[name]
    said = capsys.readouterr().err
    assert said.endswith("interrupted\n")
    assert "Traceback" not in said
    assert [signal.getsignal(getattr(signal, other)) for other in SIGNALS] == before
    assert not list(tmp_path.rglob(".lock"))


def interrupted(at: int, out: Path, then: Callable[[], None] = lambda: None) -> int:
    """A search on the toy that gets SIGTERM at a run of its backend; its exit status."""

    def on_run(number: int) -> None:
        if number == at:
            stop()

    with interruption.handle_signals() as interruptions:
        code = search(options(out, trials=12), toy.ToyBackend(on_run=on_run)).exit_code
        then()
        return interruptions.exit_code(code)


@pytest.mark.parametrize("at", [1, 251, 601])
def test_sigterm_while_searching_ends_with_a_report(tmp_path: Path, at: int) -> None:
    """As Ctrl-C does, with another status."""
    assert interrupted(at, tmp_path / "run") == 143
    results = RunResults.load(tmp_path / "run")
    assert results.stopped == "interrupted"
    assert not results.complete


def _once(act: Callable[[], None], real: Callable[[Path], Path]) -> Callable[[Path], Path]:
    left = [1]

    def replaced(folder: Path) -> Path:
        if left[0]:
            left[0] = 0
            act()
        return real(folder)

    return replaced


def test_a_signal_while_the_report_is_written_lets_it_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is measured: the results are complete, the status says that the process was told to stop."""
    pages: list[Path] = []

    def page(folder: Path) -> Path:
        pages.append(folder)
        return folder

    monkeypatch.setattr("bitfront.search.run.render", _once(stop, page))
    assert interrupted(-1, tmp_path / "run") == 143
    assert pages == [tmp_path / "run"]
    assert RunResults.load(tmp_path / "run").complete


def test_a_second_signal_ends_the_report_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ends the search, the second its report; what was measured before is resumed."""
    monkeypatch.setattr("bitfront.search.run.render", lambda _: stop())
    with pytest.raises(KeyboardInterrupt):
        interrupted(251, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("bitfront.search.run.render", lambda folder: folder)
        assert search(options(tmp_path / "run", trials=12, resume=True)).exit_code == 0


def test_what_is_ignored_stays_ignored() -> None:
    """``nohup`` ignores SIGHUP, a script's background job SIGINT."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption.handle_signals() as interruptions:
            stop(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert interruptions.received == []
    finally:
        signal.signal(signal.SIGHUP, earlier)


def test_a_third_signal_is_the_system_s() -> None:
    """So that nothing can keep a process from being stopped."""
    with interruption.handle_signals() as interruptions:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                stop()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert interruptions.received == [signal.SIGTERM] * 2
    assert interruptions.exit_code(130) == 143
    assert interruptions.exit_code(2) == 2


def run_and_stop(argv: Sequence[str], number: int, before: str) -> subprocess.CompletedProcess[str]:
    """The real command in a process that gets a signal when it begins to import a module."""
    code = f"""
import os, sys
class Finder:
    def find_spec(self, name, *_):
        if name == {before!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Finder())
from bitfront.search.cli import main
sys.exit(main(sys.argv[1:]))
"""
    argv = [sys.executable, "-c", code, *argv]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(("name", "before"), [("SIGTERM", "numpy"), ("SIGINT", "numpy"), ("SIGHUP", "onnx")])
def test_a_signal_while_importing_is_no_traceback(tmp_path: Path, name: str, before: str) -> None:
    """The handler is in place before anything heavy is loaded."""
    done = run_and_stop(["inspect", str(write_files(tmp_path).net)], getattr(signal, name), before)
    assert (done.returncode, done.stdout, done.stderr) == (SIGNALS[name], "", "interrupted\n")


def test_the_terminal_that_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is left to be told."""

    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(5, "Input/output error")

    def hang_up(_: object) -> int:
        stop(signal.SIGHUP)
        return 0

    monkeypatch.setattr(sys, "stderr", Gone())
    monkeypatch.setattr(cli, "_dispatch", hang_up)
    assert cli.main([]) == 129
