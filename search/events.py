"""Progress events of a run; the command line's progress display listens to them."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """A receiver of a run's progress events. Calls come from one thread, in order."""

    def phase(self, name: str, total: int | None) -> None:
        """Begin a phase (``calibrate``, ``sensitivity``, ``search``, ``finalists``, ``report``).

        Args:
            name: The phase.
            total: Steps it will take, if known.
        """
        ...

    def step(self, note: str) -> None:
        """Count a finished step of the phase; ``note`` names it in a few words."""
        ...

    def best(self, text: str) -> None:
        """Report a new best feasible point, in words (accuracy, latency, size)."""
        ...

    def warn(self, text: str) -> None:
        """Report something the user should know that is no error."""
        ...


class SilentListener:
    """A listener that ignores all events."""

    def phase(self, name: str, total: int | None) -> None:
        """Ignore the phase."""

    def step(self, note: str) -> None:
        """Ignore the step."""

    def best(self, text: str) -> None:
        """Ignore the point."""

    def warn(self, text: str) -> None:
        """Ignore the warning."""
