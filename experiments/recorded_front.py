"""Fronts with hits a sample, from which runs are simulated: synthetic ones, and the saved models of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitfront.backends.registry import get_backend
from bitfront.core import UsageError
from bitfront.core.artifact import load_artifact
from bitfront.core.given_network import FP32_ID
from bitfront.report.results import RunResults
from bitfront.search.inputs.workloads import load_workload
from bitfront.search.measuring.accuracy import Scorer

_POPULATION = 40_000
_CANDIDATES = 44
_ACCURACY = 1.55  # margin of a sample in standard deviations: 94 % are right in FP32
_SHARED = 0.8  # part of the noise that all candidates share: what is fragile is so for each


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Points with all that is true of them.

    Attributes:
        ids: FP32 first.
        latency_ms, size_bytes: Shape (points,).
        hits: Whether each point is right on each sample, 0 or 1, (points, samples).
    """

    ids: tuple[str, ...]
    latency_ms: NDArray[np.float64]
    size_bytes: NDArray[np.float64]
    hits: NDArray[np.float64]

    @property
    def truth(self) -> NDArray[np.float64]:
        """Accuracy on all samples, (points,)."""
        return np.asarray(self.hits.mean(axis=1))


def synthetic(seed: int, candidates: int = _CANDIDATES, samples: int = _POPULATION) -> Front:
    """Candidates that trade latency, size and noise: what costs less disturbs the samples' margins more.

    Args:
        seed: Of every draw.
        candidates: FP32 among them.
        samples: From which runs draw theirs.
    """
    rng = np.random.default_rng(seed)
    fast, small = rng.uniform(0, 1, candidates), rng.uniform(0, 1, candidates)
    fast[0] = small[0] = 0.0
    noise = 0.5 * (0.55 * fast + 0.45 * small) ** 2.5 * rng.lognormal(0, 0.35, candidates)
    margin, fragile = rng.normal(_ACCURACY, 1, samples), rng.normal(0, 1, samples)
    own = rng.normal(0, 1, (candidates, samples))
    disturbed = margin + noise[:, None] * (_SHARED**0.5 * fragile + (1 - _SHARED) ** 0.5 * own)
    # What is fragile tips to the wrong side oftener than to the right one.
    hits = (disturbed - noise[:, None] * 0.25 > 0).astype(np.float64)
    return Front(
        ids=(FP32_ID, *(f"p{index:02d}" for index in range(1, candidates))),
        latency_ms=1 - 0.7 * fast,
        size_bytes=1e6 * (1 - 0.87 * small),
        hits=hits,
    )


def recorded(folder: Path, workload: str | None, data: Path | None) -> Front:
    """The saved models of a run, scored on all labelled samples of its workload.

    Args:
        folder: The run folder.
        workload: ``module:attribute`` of its workload.
        data: Folder of published weights and images.

    Raises:
        UsageError: If no workload is named, or the run has no FP32 model.
        EngineError: If the folder or a model cannot be read or run.
    """
    if workload is None:
        raise UsageError("--run: the workload whose samples its models are scored on is not named", "add --workload")
    results, task = RunResults.load(folder), load_workload(workload, data)
    points = [p for p in results.points.values() if p.model and p.shown_latency]
    points.sort(key=lambda point: point.id != FP32_ID)
    if not points or points[0].id != FP32_ID:
        raise UsageError(f"--run: '{folder}' has no model of FP32", "give the folder of a run that came to its end")
    backend, scorer = get_backend(results.backend), Scorer(task.evaluation, task.metric, name="all samples")
    hits: list[NDArray[np.float64]] = []
    for point in points:
        artifact = load_artifact(folder / str(point.model))
        hits.append(scorer.complete(backend.compile(artifact, threads=2), None).scores)
    return Front(
        ids=tuple(point.id for point in points),
        latency_ms=np.array([point.shown_latency.median_ms for point in points if point.shown_latency]),
        size_bytes=np.array([float(point.size_bytes) for point in points]),
        hits=np.stack(hits),
    )
