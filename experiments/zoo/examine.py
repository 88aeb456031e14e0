"""Examination of a network of the zoo: searched as a person would, then measured beside ONNX Runtime's own tools.

The search is a process of its own (``search --model … --calib … --eval …``), so that a crash is that network's alone.
What it recommends and its uniform INT8 baseline are timed with the given file and with what ``quantize_static`` and
``quantize_dynamic`` make of that file: paired, interleaved, one thread. Outputs are compared by ONNX Runtime alone,
without the engine's own way of feeding networks.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from bitfront.backends import TimingSettings, get_backend, time_paired
from bitfront.core import Array, Artifact, EngineError, LatencyStats
from bitfront.experiments.peers import quantize_dynamic, quantize_static
from bitfront.experiments.zoo.coverage import Coverage, coverage_of
from bitfront.experiments.zoo.fidelity import agreement, labels_of, sqnr_db
from bitfront.experiments.zoo.network import Feed, ZooNetwork
from bitfront.report.results import RunResults

T = TypeVar("T")
CALIBRATION_SEED, EVALUATION_SEED = 1, 2
GIVEN, INT8, RECOMMENDED = "given", "int8", "recommended"
PEERS: Mapping[str, Callable[[bytes, Sequence[Feed]], bytes]] = {
    "quantize_static": quantize_static,
    "quantize_dynamic": lambda model, feeds: quantize_dynamic(model),  # noqa: ARG005
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Amount of work for one network.

    Attributes:
        calibration, evaluation: Samples of each.
        trials, sensitivity_samples: As of ``search``.
        max_drop: Loss of ``fidelity`` that the search allows.
        search_s: As ``search --time-limit``.
        limit_s: Seconds after which a search is ended, and counts as hanging.
        timing: Of the paired timing.
    """

    calibration: int = 8
    evaluation: int = 16
    trials: int = 8
    sensitivity_samples: int = 4
    max_drop: float = 0.01
    search_s: float = 30.0
    limit_s: float = 600.0
    timing: TimingSettings = field(default_factory=lambda: TimingSettings(max_seconds_per_model=1.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedModel:
    """Version of a network: how large, how fast beside the given file, how near to its outputs."""

    name: str
    size_bytes: int
    latency: LatencyStats | None
    sqnr_db: float
    agreement: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """Findings on one network.

    Attributes:
        network: Its name.
        exit_code: Of the search; None where it was ended for taking too long.
        seconds: The search took.
        said: The last lines of its messages.
        text: The recommended point's schemes in short.
        coverage: None where the network is refused, which ``problems`` tells.
        artifacts: What could be made and run, the given file first.
        problems: Everything that could not, in words.
    """

    network: str
    exit_code: int | None
    seconds: float
    said: str
    text: str
    coverage: Coverage | None
    artifacts: tuple[QuantisedModel, ...]
    problems: tuple[str, ...]


def examine(network: ZooNetwork, site: Path, folder: Path, settings: Settings) -> Examined:
    """Search one network and measure what comes out.

    Args:
        network: The network.
        site: Folder of the installed packages.
        folder: Where its files go; made, and used again if a search of it has ended there.
        settings: How much is done.

    Raises:
        DataError: If the network's package is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = network.model(site)
    path = folder / f"{network.name}.onnx"
    path.write_bytes(model)
    calibration = network.feeds(settings.calibration, seed=CALIBRATION_SEED)
    evaluation = network.feeds(settings.evaluation, seed=EVALUATION_SEED)
    wanted = run_each(model, evaluation)
    np.savez(folder / "calib.npz", **network.stacked(calibration))  # type: ignore[arg-type] # its stub lacks arrays
    np.savez(folder / "eval.npz", labels=labels_of(wanted), **network.stacked(evaluation))  # type: ignore[arg-type]
    problems: list[str] = []
    start = time.perf_counter()
    code, said = _search(path, folder, settings)
    seconds = time.perf_counter() - start
    if code not in (0, 3):
        problems.append(f"search: {_reason(said)}")
    coverage = _tried(problems, "coverage", lambda: coverage_of(path))
    made = {GIVEN: model}
    text = ""
    found = _tried(problems, "results", lambda: RunResults.load(folder / "run")) if code in (0, 3) else None
    if found is not None:
        for name, id_ in ((INT8, "int8"), (RECOMMENDED, found.recommended)):
            point = found.points.get(id_) if id_ else None
            if point is not None and point.model is not None:
                made[name] = (folder / "run" / point.model).read_bytes()
                text = point.text
    for name, quantise in PEERS.items():
        result = _tried(problems, name, lambda quantise=quantise: quantise(model, calibration))  # type: ignore[misc]
        if result is not None:
            made[name] = result
    outputs = {name: _tried(problems, f"{name} runs", lambda m=m: run_each(m, evaluation)) for name, m in made.items()}  # type: ignore[misc]
    runnable = {name: made[name] for name, found in outputs.items() if found is not None}
    latencies = _tried(problems, "timing", lambda: _latencies(runnable, evaluation[0], settings.timing)) or {}
    artifacts = tuple(
        QuantisedModel(
            name=name,
            size_bytes=len(made[name]),
            latency=latencies.get(name),
            sqnr_db=sqnr_db(wanted, answers),
            agreement=agreement(wanted, answers),
        )
        for name, answers in outputs.items()
        if answers is not None
    )
    return Examined(
        network=network.name,
        exit_code=code,
        seconds=seconds,
        said=said,
        text=text,
        coverage=coverage,
        artifacts=artifacts,
        problems=tuple(problems),
    )


def run_each(model: bytes, feeds: Sequence[Feed]) -> list[list[Array]]:
    """Sample → output → array, by ONNX Runtime with its defaults on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [session.run(None, dict(feed)) for feed in feeds]


def _search(path: Path, folder: Path, settings: Settings) -> tuple[int | None, str]:
    command = [
        sys.executable, "-m", "bitfront.search", "--model", str(path), "--calib", str(folder / "calib.npz"),
        "--eval", str(folder / "eval.npz"), "--metric", "bitfront.experiments.zoo.fidelity:fidelity",
        "--max-drop", str(settings.max_drop), "--time-limit", f"{settings.search_s}s", "--trials", str(settings.trials),
        "--sensitivity-samples", str(settings.sensitivity_samples), "--out", str(folder / "run"), "--quiet",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=settings.limit_s, check=False)
    except subprocess.TimeoutExpired:
        return None, f"ended after {settings.limit_s:.0f} s"
    (folder / "search.txt").write_text(done.stdout + "\n" + done.stderr, encoding="utf-8")
    return done.returncode, done.stderr.strip()


def _reason(said: str) -> str:
    """The error that a search ended with: its message, or a traceback's last line."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    if "Traceback" in said:
        return f"traceback: {lines[-1]}"
    return errors[0] if errors else lines[-1] if lines else "no word"


def _tried(problems: list[str], what: str, attempt: Callable[[], T]) -> T | None:
    """Return what ``attempt`` gives; None where it fails, which is noted: here failures are results."""
    try:
        return attempt()
    except EngineError as error:
        problems.append(f"{what}: {error.message}")
    except Exception as error:  # noqa: BLE001 - other tools' own errors are of any kind
        lines = str(error).strip().splitlines()
        problems.append(f"{what}: {type(error).__name__}: {lines[0] if lines else ''}")
    return None


def _latencies(models: Mapping[str, bytes], feed: Feed, settings: TimingSettings) -> dict[str, LatencyStats]:
    backend = get_backend("ort-cpu")
    compiled = {name: backend.compile(Artifact.onnx(model), threads=1, batch_size=1) for name, model in models.items()}
    return time_paired(
        compiled,
        GIVEN,
        feed,
        settings,
        threads=1,
        batch_size=1,
        clock=backend.clock,
        processor_clock=backend.processor_clock,
    )
