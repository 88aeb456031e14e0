"""Display of a run's progress: live on a terminal, plain lines elsewhere, nothing when quiet.

Everything goes to standard error, so that standard output holds the result alone. The live display is redrawn only
when the run says something: a redraw from another thread would disturb the latencies being measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from bitfront.core.display import visible, visible_lines
from bitfront.search.console.terminal import write_message
from bitfront.search.events import Listener, SilentListener

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

PLAIN_INTERVAL_S = 10.0
LIVE_INTERVAL_S = 0.1
STEPS_BEFORE_ESTIMATE = 3
_NO_CURSOR = ("dumb", "unknown")  # values of TERM
Clock = Callable[[], float]


@dataclass(slots=True, kw_only=True)
class RunState:
    """State of a run's progress.

    Attributes:
        clock: Seconds from any origin.
        time_limit_s: Limit of the search phase, None without one.
    """

    clock: Clock
    time_limit_s: float | None
    name: str = ""
    total: int | None = None
    done: int = 0
    note: str = ""
    best: str = ""
    started: float = field(init=False)
    phase_started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.phase_started = self.clock()

    def begin(self, name: str, total: int | None) -> None:
        """Begin a phase."""
        self.name, self.total, self.done, self.note = name, total, 0, ""
        self.phase_started = self.clock()

    def advance(self, note: str) -> None:
        """Count a finished step of the phase; ``note`` may hold names from a network."""
        self.done += 1
        self.note = visible(note)

    def improve(self, text: str) -> bool:
        """Take a new best, in words; whether it differs from the one known."""
        known, self.best = self.best, visible(text)
        return self.best != known

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    def left_s(self) -> float | None:
        """Seconds the phase will still take: its pace so far, at most the time limit; None if unknown."""
        spent = self.clock() - self.phase_started
        guesses = []
        if self.total is not None and self.done >= STEPS_BEFORE_ESTIMATE:
            guesses.append(max(0, self.total - self.done) * spent / self.done)
        if self.time_limit_s is not None and self.name == "search":
            guesses.append(max(0.0, self.time_limit_s - spent))
        return min(guesses, default=None)

    def line(self) -> str:
        """Phase, step, elapsed and remaining time, in one line."""
        parts = [self.name]
        if self.done or self.total is not None:
            parts.append(f"{self.done} of {self.total}" if self.total is not None else f"{self.done}")
        parts.append(f"{format_duration(self.elapsed_s)} elapsed")
        left = self.left_s()
        if left is not None:
            parts.append(f"about {format_duration(left)} left")
        return " · ".join(parts)


def format_duration(seconds: float) -> str:
    """Seconds in words: ``42 s``, ``3 min 05 s``, ``1 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class PlainProgress:
    """A listener that writes lines: each phase, each new best, and where it is every few seconds.

    Args:
        stream: Where lines go.
        time_limit_s: Limit of the search phase, None without one.
        clock: Seconds from any origin.
    """

    def __init__(self, stream: TextIO, time_limit_s: float | None, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._state = RunState(clock=clock, time_limit_s=time_limit_s)
        self._said = -PLAIN_INTERVAL_S

    def phase(self, name: str, total: int | None) -> None:
        """Write the phase's line."""
        self._state.begin(name, total)
        self._say(self._state.line())

    def step(self, note: str) -> None:
        """Write a line if the last is long enough ago."""
        self._state.advance(note)
        if self._state.clock() - self._said >= PLAIN_INTERVAL_S:
            self._say(f"{self._state.line()} · {self._state.note}" if note else self._state.line())

    def best(self, text: str) -> None:
        """Write the new best."""
        if self._state.improve(text):
            self._say(f"best so far: {self._state.best}")

    def warn(self, text: str) -> None:
        """Write the warning."""
        self._said = self._state.clock()
        write_message(self._stream, "warning", text)
        self._stream.flush()

    def _say(self, text: str) -> None:
        self._said = self._state.clock()
        self._stream.write(text + "\n")
        self._stream.flush()


class LiveProgress:
    """A listener that redraws three lines in place.

    Args:
        live: An entered rich display, without its own refresh thread.
        console: Where warnings are written, above the display.
        time_limit_s: Limit of the search phase, None without one.
        clock: Seconds from any origin.
    """

    def __init__(self, live: Live, console: Console, time_limit_s: float | None, clock: Clock = time.monotonic) -> None:
        self._live = live
        self._console = console
        self._state = RunState(clock=clock, time_limit_s=time_limit_s)
        self._drawn = -LIVE_INTERVAL_S

    def phase(self, name: str, total: int | None) -> None:
        """Show the phase."""
        self._state.begin(name, total)
        self._draw()

    def step(self, note: str) -> None:
        """Show the step, unless the last redraw was just now."""
        self._state.advance(note)
        if self._state.clock() - self._drawn >= LIVE_INTERVAL_S:
            self._draw()

    def best(self, text: str) -> None:
        """Show the new best."""
        self._state.improve(text)
        self._draw()

    def warn(self, text: str) -> None:
        """Write the warning above the display."""
        from rich.text import Text

        self._console.print(Text("\n  ".join(visible_lines(f"warning: {text}")), style="yellow"))

    def _draw(self) -> None:
        self._drawn = self._state.clock()
        self._live.update(render(self._state), refresh=True)


def render(state: RunState) -> RenderableType:
    """The live display's lines for a state."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    lines = Table.grid()  # a row each: a bare progress bar does not end its line
    lines.add_row(Text(state.line(), style="bold"))
    if state.total:
        lines.add_row(ProgressBar(total=state.total, completed=min(state.done, state.total), width=60))
    if state.note:
        lines.add_row(Text(state.note, overflow="ellipsis", no_wrap=True))
    lines.add_row(Text(f"best so far: {state.best}" if state.best else "nothing within the limits yet", style="green"))
    return lines


@contextmanager
def progress_display(stream: TextIO, *, quiet: bool, time_limit_s: float | None) -> Iterator[Listener]:
    """The listener that fits ``stream``: live on a terminal that can redraw, lines elsewhere, silent when asked."""
    if quiet:
        yield SilentListener()
    elif stream.isatty() and os.environ.get("TERM", "") not in _NO_CURSOR:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=stream)
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield LiveProgress(live, console, time_limit_s)
    else:
        yield PlainProgress(stream, time_limit_s)
