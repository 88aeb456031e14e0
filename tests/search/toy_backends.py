"""Three toy runtimes with tables of their own, and runs on several of them at once.

``ToyBackend`` is the common one. ``Quick`` has fast INT4 and FP16. ``Narrow`` has no INT4 on layer ``b``,
and decides ``d`` and ``e`` together.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bitfront.backends.timing import TimingSettings, time_paired
from bitfront.core import Array, Artifact, Constraints, Inputs, LatencyStats
from bitfront.core.artifact import load_artifact
from bitfront.lowering.layers import PrecisionGroup
from bitfront.search.multi_backend.runs import BackendSearch, MultiBackendResult, folder_names, run_on_backends
from bitfront.search.options import RunOptions
from bitfront.search.results import finalists
from tests.search import toy
from tests.search.toy_runs import Heard

NAMES = ("fake", "tests.search.toy_backends:Quick", "tests.search.toy_backends:Narrow")
FAKE, QUICK, NARROW = NAMES
REFUSAL = "its kernels want 8 bits"
QUICK_MS = {"fp32": 0.6, "fp16": 0.3, "int8:nearest": 0.45, "int4:nearest": 0.1}


class Model(toy.ToyModel):
    """A toy model with the latency of its backend's table."""

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """As the toy, in another time."""
        before = self.backend.simulated()
        outputs = toy.ToyModel.run(self, inputs)
        count = len(inputs["x"])
        spent = (self.backend.simulated() - before) * 1e-6
        wanted = sum(QUICK_MS[text] for text in self.schemes.values()) + 0.2 * _crossings(self.schemes)
        self.backend.simulated.advance(wanted * count - spent)
        return outputs


def _crossings(schemes: Mapping[str, str]) -> int:
    integer = [text.startswith("int") for text in schemes.values()]
    return sum(left != right for left, right in itertools.pairwise(integer))


class Quick(toy.ToyBackend):
    """Fast INT4 and FP16."""

    name = QUICK

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> Model:
        """As the toy, with its own table."""
        made = super().compile(artifact, threads=threads, batch_size=batch_size)
        assert isinstance(made, toy.ToyModel)
        return Model(schemes=made.schemes, backend=self)


class Narrow(toy.ToyBackend):
    """The toy by another name; what it lacks is its lowerer's."""

    name = NARROW


class NarrowLowerer(toy.ToyLowerer):
    """Has no INT4 on ``b``, and ``d`` and ``e`` share a scheme."""

    def __init__(self) -> None:
        super().__init__()
        quantisable = self.quantisable
        without = tuple(scheme for scheme in toy.SCHEMES if scheme != toy.INT4)
        layers = tuple(
            replace(layer, schemes=without, refused={toy.INT4.text: REFUSAL}) if layer.name == "b" else layer
            for layer in quantisable.layers
        )
        groups = (
            *(replace(g, schemes=without) if g.name == "b" else g for g in quantisable.groups[:3]),
            PrecisionGroup(name="d+1", layers=("d", "e"), reason="added up", schemes=toy.SCHEMES),
        )
        edges = tuple((i, i + 1) for i in range(len(groups) - 1))
        self.__dict__["quantisable"] = replace(quantisable, layers=layers, groups=groups, edges=edges)


BACKENDS: Mapping[str, type[toy.ToyBackend]] = {FAKE: toy.ToyBackend, QUICK: Quick, NARROW: Narrow}


def elsewhen(
    backend: str,
    models: Mapping[str, Path],
    reference: str,
    inputs: Inputs,
    settings: TimingSettings,
    *,
    threads: int,
    batch_size: int,
) -> dict[str, LatencyStats]:
    """Stands in for the fresh process of each of the three."""
    runtime = BACKENDS[backend]()
    compiled = {name: runtime.compile(load_artifact(path), threads=threads) for name, path in models.items()}
    return time_paired(
        compiled, reference, inputs, settings, threads=threads, batch_size=batch_size, clock=runtime.clock
    )


@pytest.fixture(autouse=True)
def apart(elsewhere: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each backend's finalists are timed on that backend."""
    del elsewhere
    monkeypatch.setattr(finalists, "time_in_subprocess", elsewhen)


def searches(
    folder: Path,
    names: Sequence[str] = NAMES[:2],
    budgets: Mapping[str, Constraints] | None = None,
    backends: Mapping[str, toy.ToyBackend] | None = None,
    trials: int = 12,
    *,
    resume: bool = False,
) -> list[BackendSearch]:
    """The searches that ``run_on_backends`` is given."""
    made = []
    for name, label in folder_names(names).items():
        options = RunOptions(
            budget=(budgets or {}).get(name, Constraints()), out=folder / label, backend=name, trials=trials,
            sensitivity_samples=32, resume=resume,
        )  # fmt: skip
        lowerer = NarrowLowerer() if name == NARROW else toy.ToyLowerer()
        backend = (backends or {}).get(name) or BACKENDS[name]()
        made.append(BackendSearch(backend=backend, lowerer=lowerer, options=options))
    return made


def search_on_toy_backends(
    folder: Path,
    given: Sequence[BackendSearch],
    heard: Heard | None = None,
    *,
    time_limit_s: float | None = None,
) -> MultiBackendResult:
    """Run on the toy backends."""
    return run_on_backends(toy.workload(), given, folder, heard or Heard(), time_limit_s=time_limit_s)
