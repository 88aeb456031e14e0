"""What is said while a run works: in lines, live, or not at all."""

from __future__ import annotations

import io

import pytest

from bitfront.search.console.progress import LiveProgress, PlainProgress, RunState, format_duration, progress_display
from bitfront.search.events import Listener, SilentListener


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_are_throttled() -> None:
    """Each phase and each new best is a line; steps are one every ten seconds, with where the run is."""
    stream, clock = io.StringIO(), Clock()
    plain = PlainProgress(stream, None, clock)
    plain.phase("search", 100)
    for number in range(50):
        clock.now += 1.0
        plain.step(f"p{number:02d}")
    plain.best("97 %, 1 ms")
    plain.best("97 %, 1 ms")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "search · 0 of 100 · 0 s elapsed"
    assert lines[1] == "search · 10 of 100 · 10 s elapsed · about 1 min 30 s left · p09"
    assert lines[-1] == "best so far: 97 %, 1 ms"
    assert len(lines) == 1 + 5 + 1


def test_time_left() -> None:
    """Time left is the phase's pace, at most what the time limit leaves; unknown before a few steps."""
    clock = Clock()
    state = RunState(clock=clock, time_limit_s=60.0)
    state.begin("sensitivity", 10)
    clock.now += 2.0
    state.advance("a")
    assert state.left_s() is None
    state.advance("b")
    state.advance("c")
    clock.now += 4.0
    assert state.left_s() == pytest.approx(7 * 6.0 / 3)
    state.begin("search", 1000)
    clock.now += 10.0
    assert state.left_s() == pytest.approx(50.0)
    clock.now += 100.0
    assert state.left_s() == 0.0


def test_steps_beyond_the_total_leave_nothing() -> None:
    """A phase that takes more steps than announced never has negative time left."""
    clock = Clock()
    state = RunState(clock=clock, time_limit_s=None)
    state.begin("finalists", 2)
    for _ in range(5):
        clock.now += 1.0
        state.advance("")
    assert state.left_s() == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (4800, "1 h 20 min")],
)
def test_duration(seconds: float, words: str) -> None:
    """Durations have the unit a person would use."""
    assert format_duration(seconds) == words


def play(listener: Listener) -> None:
    """A short run."""
    listener.phase("search", 3)
    listener.step("p00 (baseline): complete")
    listener.best("97 %, 1 ms")
    listener.warn("the machine is busy [really]")


def test_quiet_says_nothing() -> None:
    """``--quiet`` silences progress altogether."""
    stream = io.StringIO()
    with progress_display(stream, quiet=True, time_limit_s=None) as listener:
        play(listener)
    assert isinstance(listener, SilentListener)
    assert stream.getvalue() == ""


def test_lines_without_a_terminal() -> None:
    """Where the output is no terminal there are lines without control codes."""
    stream = io.StringIO()
    with progress_display(stream, quiet=False, time_limit_s=None) as listener:
        play(listener)
    assert isinstance(listener, PlainProgress)
    assert "warning: the machine is busy [really]\n" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_live_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the display is redrawn in place and shows phase, step, best and warnings."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    with progress_display(stream, quiet=False, time_limit_s=30.0) as listener:
        play(listener)
    assert isinstance(listener, LiveProgress)
    for words in (
        "0 of 3",
        "p00 (baseline): complete",
        "best so far: 97 %, 1 ms",
        "nothing within the limits yet",
        "the machine is busy [really]",
    ):
        assert words in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_lines_on_a_terminal_that_cannot_redraw(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cursor cannot be moved there are lines, without control codes."""
    monkeypatch.setenv("TERM", term)
    stream = Terminal()
    with progress_display(stream, quiet=False, time_limit_s=None) as listener:
        play(listener)
    assert "best so far: 97 %, 1 ms\n" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
def test_names_steer_nothing(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, bests and warnings quote names of layers: their control characters are shown, live and in lines."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("bitfront.search.console.progress.PLAIN_INTERVAL_S", 0.0)
    stream, name = Terminal(), "\x1b]0;title\x07\u202e[red]x"
    with progress_display(stream, quiet=False, time_limit_s=None) as listener:
        listener.phase("sensitivity", 3)
        listener.step(name)
        listener.best(name)
        listener.warn(f"{name}\nerror: forged")
        listener.phase("search", 3)
    text = stream.getvalue()
    assert not {"\x07", "\u202e"} & set(text)
    assert "\x1b]" not in text
    assert text.count("\\x1b]0;title\\x07\\u202e[red]x") >= 2
    assert not [line for line in text.splitlines() if line.startswith("error:")]
