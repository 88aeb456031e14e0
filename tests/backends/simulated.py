"""A machine whose time is made up: its speed drifts, caches grow cold, and other programs get in the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bitfront.backends.host import HostModel
from bitfront.core import Array, BackendError, Inputs


def steady(_: float) -> float:
    """The same speed at all times."""
    return 1.0


class Machine:
    """Models on one simulated processor.

    Args:
        slowness: Seconds since the start → factor on every run's time.
        cold_ms: What the first run of a model takes longer after another model's.
        hiccup_every: Every so many runs, one takes ten times as long; 0 is never.
    """

    def __init__(
        self, slowness: Callable[[float], float] = steady, cold_ms: float = 0.0, hiccup_every: int = 0
    ) -> None:
        self.now_ns = 0
        self.log: list[str] = []
        self._slowness, self._cold_ms, self._hiccup_every = slowness, cold_ms, hiccup_every

    def clock(self) -> int:
        return self.now_ns

    def spend(self, name: str, base_ms: float) -> None:
        cold = self._cold_ms if self.log and self.log[-1] != name else 0.0
        self.log.append(name)
        hiccup = 10 if self._hiccup_every and len(self.log) % self._hiccup_every == 0 else 1
        self.now_ns += round((base_ms * hiccup + cold) * self._slowness(self.now_ns / 1e9) * 1e6)

    def models(self, **base_ms: float) -> dict[str, SimulatedModel]:
        return {name: SimulatedModel(self, name, value) for name, value in base_ms.items()}


class SimulatedModel(HostModel):
    def __init__(self, machine: Machine, name: str, base_ms: float) -> None:
        self._machine, self._name, self._base_ms = machine, name, base_ms

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return {}

    @property
    def output_names(self) -> tuple[str, ...]:
        return ()

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        if "broken" in inputs:
            raise BackendError("planted failure")
        self._machine.spend(self._name, self._base_ms)
        return ()

    def operators(self) -> tuple[str, ...]:
        return ()
