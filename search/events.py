"""What a run tells the outside while it works; the command line's progress display listens."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Hears of a run's progress. Calls come from one thread, in order."""

    def phase(self, name: str, total: int | None) -> None:
        """A phase begins (``calibrate``, ``sensitivity``, ``search``, ``finalists``, ``report``).

        Args:
            name: The phase.
            total: Steps it will take, if known.
        """
        ...

    def step(self, note: str) -> None:
        """One step of the phase is done; ``note`` says which, in a few words."""
        ...

    def best(self, text: str) -> None:
        """A new best feasible point, in words (accuracy, latency, size)."""
        ...

    def warn(self, text: str) -> None:
        """Something the user should know that is no error."""
        ...


class SilentListener:
    """A listener that says nothing."""

    def phase(self, name: str, total: int | None) -> None:
        """Ignore it."""

    def step(self, note: str) -> None:
        """Ignore it."""

    def best(self, text: str) -> None:
        """Ignore it."""

    def warn(self, text: str) -> None:
        """Ignore it."""
