"""Runs on runtimes that are not like ONNX Runtime's CPU provider, on the toy network."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bitfront.backends.base import Backend, CompiledModel, DeviceFingerprint
from bitfront.core import Artifact, BackendError, Constraints, MemoryUsage, Precision, UsageError
from bitfront.report.html import facts
from bitfront.report.results import RunResults
from bitfront.report.tables import COLUMNS, FOOTPRINT_COLUMNS, columns, front_rows, pareto_frame
from tests.search import toy
from tests.search.toy_runs import Elsewhen, Heard, elsewhere, options, search

# Fixtures are found by name in the module.
__all__ = ["elsewhere"]

HALF_COST_MS = {"fp32": 1.0, "fp16": 0.5, "int8:nearest": 0.2, "int4:nearest": 0.2}


class _EngineModel(toy.ToyModel):
    def memory_usage(self) -> MemoryUsage:
        return MemoryUsage(engine_bytes=len(self.schemes) * 1000, weight_bytes=700)

    def engine(self) -> bytes | None:
        return json.dumps(dict(self.schemes)).encode()


class _EngineBackend(toy.ToyBackend):
    """Has engine files, and tells what they take."""

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
        super().compile(artifact, threads=threads, batch_size=batch_size)
        return _EngineModel(schemes=json.loads(artifact.data), backend=self)


class _SlowToBuild(toy.ToyBackend):
    """Compiles for timing alone; sensitivities have to come from elsewhere."""

    def __init__(self, proxy_backend: toy.ToyBackend) -> None:
        super().__init__()
        self._stand_in = proxy_backend
        self.scoring = False

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
        if not self.scoring:
            raise BackendError("builds take minutes")
        return super().compile(artifact, threads=threads, batch_size=batch_size)

    def proxy_backend(self) -> Backend:
        return self._stand_in


class _Named(toy.ToyBackend):
    def __init__(self, runtime: str) -> None:
        super().__init__()
        self._runtime = runtime

    def fingerprint(self) -> DeviceFingerprint:
        return replace(super().fingerprint(), runtime=self._runtime)


class _Withholding(toy.ToyBackend):
    def unprofitable_precisions(self) -> Mapping[Precision, str]:
        return {Precision.INT8: "8-bit kernels are slower than 16-bit ones here"}


def test_half_that_is_faster_makes_mixed_points(tmp_path: Path, elsewhere: Elsewhen) -> None:
    """Where FP16 takes half the time and INT8 costs accuracy, the front holds FP16, INT8 and mixes of the two."""
    elsewhere.runtime = lambda: toy.ToyBackend(cost_ms=HALF_COST_MS)
    asked = options(tmp_path / "run", Constraints(latency_ms=2.3), trials=24)
    outcome = search(asked, toy.ToyBackend(cost_ms=HALF_COST_MS), toy.ToyLowerer(dialect=toy.Fp16Dialect()))
    assert outcome.exit_code == 0
    used = [{scheme.precision for scheme in outcome.points[id_].layers.values()} for id_ in outcome.front]
    assert {Precision.FP16} in used
    assert {Precision.FP16, Precision.INT8} in used
    best = outcome.points[str(outcome.recommended)]
    assert best.latency is not None
    assert best.latency.median_ms <= 2.3
    assert {scheme.precision for scheme in best.layers.values()} == {Precision.FP16, Precision.INT8}


def test_withheld_precisions_are_left_out_and_said(tmp_path: Path) -> None:
    """What gains nothing here is in no trial; the listener, the record and the page say why, also when asked for."""
    heard = Heard()
    asked = options(tmp_path / "run", trials=6, precisions=(Precision.FP32, Precision.FP16, Precision.INT8))
    outcome = search(asked, _Withholding(), heard=heard)
    reason = "8-bit kernels are slower than 16-bit ones here"
    assert heard.warnings[0] == f"int8 is left out on fake: {reason}"
    results = RunResults.load(outcome.folder)
    assert results.settings["withheld"] == {"int8": reason}
    assert results.settings["precisions"] == ["fp32", "fp16"]
    assert ("Not offered: int8", reason) in facts(results)
    assert {c.precision for t in results.trials for c in t.schemes.values()} == {Precision.FP32, Precision.FP16}


def test_footprints_are_reported_where_known(tmp_path: Path) -> None:
    """Columns for engine, weights and activations appear in table and CSV, with a dash for what is not told."""
    outcome = search(options(tmp_path / "run", trials=4), _EngineBackend())
    results = RunResults.load(outcome.folder)
    assert outcome.points["int8"].footprint == MemoryUsage(engine_bytes=5000, weight_bytes=700)
    assert results.points["int8"].footprint == outcome.points["int8"].footprint
    shown = columns(results)
    assert set(FOOTPRINT_COLUMNS) <= set(shown)
    row = dict(zip(shown, front_rows(results)[0], strict=True))
    assert (row["engine"], row["weights"], row["activations"]) == ("5.00 kB", "700 B", "–")
    assert pareto_frame(results)["engine_bytes"].tolist() == [5000] * len(results.front)


def test_no_footprint_no_columns(tmp_path: Path) -> None:
    """Where nothing is told tables are as they were; records written before footprints still load."""
    outcome = search(options(tmp_path / "run", trials=4))
    results = RunResults.load(outcome.folder)
    assert columns(results) == COLUMNS
    assert "engine_bytes" not in pareto_frame(results)
    path = outcome.folder / "measurement.json"
    data = json.loads(path.read_text())
    for point in data["points"].values():
        del point["footprint"], point["engine"]
    path.write_text(json.dumps(data))
    assert RunResults.load(outcome.folder).points == results.points


def test_engines_are_saved_where_there_are_any(tmp_path: Path) -> None:
    """Each finalist has its engine file; a resumed run has them again."""
    asked = options(tmp_path / "run", trials=4, save_engine=True)
    for again in (False, True):
        outcome = search(replace(asked, resume=again), _EngineBackend())
        for point in outcome.points.values():
            assert point.engine == f"models/{point.id}.engine"
            saved = json.loads((outcome.folder / point.engine).read_text())
            assert saved == {layer: scheme.text for layer, scheme in point.layers.items()}


def test_engines_of_a_runtime_without_any_are_refused_early(tmp_path: Path) -> None:
    """Before anything is searched, with what to do instead."""
    backend = toy.ToyBackend()
    with pytest.raises(UsageError, match="--save-engine: fake has no engine file of its own"):
        search(options(tmp_path / "run", save_engine=True), backend)
    assert backend.compiled == 1


def _scored_again(folder: Path, backend: toy.ToyBackend, counted: toy.ToyBackend) -> int:
    """How many models sensitivity scoring compiles on ``counted``."""
    before = counted.compiled
    score_on_toy(backend, folder)
    return counted.compiled - before


def score_on_toy(backend: Backend, folder: Path) -> list[dict[str, float]]:
    """Sensitivities as a run takes them."""
    from bitfront.core import ContentStore
    from bitfront.sensitivity.divergence_metric import OutputReading
    from bitfront.sensitivity.score import score_sensitivities

    table = score_sensitivities(
        toy.ToyLowerer(),
        backend.proxy_backend(),
        toy.workload().calibration,
        samples=32,
        read=(OutputReading(kind="classes"),),
        precisions=tuple(Precision),
        threads=1,
        store=ContentStore(folder),
        on_step=lambda _: None,
    )
    return [{scheme.text: loss for scheme, loss in row.items()} for row in table.losses().values()]


def test_sensitivities_come_from_the_stand_in(tmp_path: Path) -> None:
    """A backend that refuses to compile for sensitivities is scored on its stand-in, with the same result."""
    slow = _SlowToBuild(_Named("stand-in 1"))
    assert score_on_toy(slow, tmp_path / "slow") == score_on_toy(toy.ToyBackend(), tmp_path / "own")
    assert slow.compiled == 0


def test_scores_are_kept_under_the_stand_ins_name(tmp_path: Path) -> None:
    """The same stand-in repeats nothing, whoever it stands in for; another version of it scores anew."""
    first, other = _Named("stand-in 1"), _Named("stand-in 2")
    assert _scored_again(tmp_path, _SlowToBuild(first), first) > 0
    assert _scored_again(tmp_path, _SlowToBuild(first), first) == 0
    assert _scored_again(tmp_path, _SlowToBuild(other), other) > 0


def test_a_run_times_on_the_backend_and_scores_sensitivity_on_the_stand_in(tmp_path: Path) -> None:
    """The stand-in sees sensitivity's artifacts alone: its compilations are those of scoring by itself."""
    proxy_backend, alone = _Named("stand-in 1"), _Named("stand-in 1")
    backend = _SlowToBuild(proxy_backend)
    backend.scoring = True
    outcome = search(options(tmp_path / "run", trials=6), backend)
    assert outcome.exit_code == 0
    assert proxy_backend.compiled == _scored_again(tmp_path / "cache", alone, alone)
    assert backend.compiled > 6
    with (tmp_path / "run" / "sensitivity.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5 * 4
