"""Scoring every (group, scheme) by running the real artifact on its backend, in two contexts.

    single layer   every scheme of every group, the rest of the network FP32 ("alone" in files)
    leave one out  the best rounding of each rank, the rest at its lowest precision (fewest bits, 8-bit activations, the
                   rounding that scored best alone), minus the score of FP32 in its place, sample by sample
                   ("restored" in files)

A score is kept under the digest of the artifact, the FP32 artifact, the inputs, the divergence metric and the device,
so a run that was killed repeats none, and two schemes that are written alike are run once. A scheme that the lowerer or
the backend refuses is dropped with what it said; if they refuse FP32, that is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitfront.backends.base import Backend
from bitfront.backends.batches import FIRST_AXIS, sample_count
from bitfront.core import (
    FP32,
    Artifact,
    BackendError,
    BackendUnavailableError,
    Batching,
    ContentStore,
    Inputs,
    LoweringError,
    Precision,
    Scheme,
    digest,
)
from bitfront.lowering.layers import PrecisionGroup, QuantisableLayers
from bitfront.sensitivity.divergence import DivergenceFrom
from bitfront.sensitivity.divergence_metric import OutputReading, choose_divergence_metric
from bitfront.sensitivity.losses import with_losses
from bitfront.sensitivity.precision_order import best_of_each_rank, lowest
from bitfront.sensitivity.reference_outputs import ReferenceOutputs
from bitfront.sensitivity.table import SensitivityRow, SensitivityTable

_SCHEMA = 2
_KIND = "sensitivity"
_NOT_MEASURED = (math.nan, math.nan)

Schemes = dict[str, Scheme]
Scores = NDArray[np.float64]  # one a sample


class SchemeLowerer(Protocol):
    """Writes schemes as an artifact, as ``lowering.lowerer.Lowerer`` does."""

    @property
    def quantisable(self) -> QuantisableLayers:
        """The network's layers and groups, with the schemes that each may take."""
        ...

    def lower(self, schemes: Mapping[str, Scheme]) -> Artifact:
        """The artifact for layer name → scheme.

        Raises:
            LoweringError: If a layer may not take its scheme.
        """
        ...


def planned_steps(quantisable: QuantisableLayers, precisions: Sequence[Precision]) -> int:
    """Number of steps that ``score_sensitivities`` reports."""
    return sum(len(_schemes(group, precisions)) for group in quantisable.groups)


def score_sensitivities(
    lowerer: SchemeLowerer,
    backend: Backend,
    inputs: Inputs,
    *,
    samples: int,
    read: Sequence[OutputReading],
    precisions: Sequence[Precision],
    threads: int,
    store: ContentStore,
    on_step: Callable[[str], None],
    batching: Batching = FIRST_AXIS,
) -> SensitivityTable:
    """Score every (group, scheme) of the allowed precisions.

    Args:
        lowerer: Writes the candidates.
        backend: Runs them.
        inputs: Unlabelled inputs, (n, …) each.
        samples: How many of them each score is taken on, from the first on.
        read: How each output is read, which decides on the divergence metric.
        precisions: Allowed besides FP32.
        threads: Intra-operator threads of the backend.
        store: Where scores are kept.
        on_step: Told of each step, in a few words; ``planned_steps`` says how many there will be.
        batching: Where the samples are in the network's own arrays; outputs without a row a sample are left aside.

    Returns:
        One row per (group, scheme), cleaned.

    Raises:
        LoweringError: If the FP32 network cannot be written.
        BackendError: If the backend refuses the FP32 network.
        DataError: If the inputs do not fit, or the FP32 network's outputs are not finite.
    """
    quantisable = lowerer.quantisable
    scorer = _Scorer(
        lowerer, backend, {name: array[:samples] for name, array in inputs.items()}, read, threads, store, batching
    )
    offered = {group.name: _schemes(group, precisions) for group in quantisable.groups}
    all_fp32 = dict.fromkeys(offered, FP32)

    single_layer: dict[str, dict[Scheme, float]] = {}
    refused: dict[tuple[str, Scheme], str] = {}
    for group, schemes in offered.items():
        single_layer[group] = {FP32: 0.0}
        for scheme in schemes[1:]:
            try:
                single_layer[group][scheme] = float(scorer.score({**all_fp32, group: scheme}).mean())
            except _RefusedError as error:
                refused[group, scheme] = error.reason
            on_step(f"{group} {scheme.text}")

    all_low = {group: lowest(scores) for group, scores in single_layer.items()}
    leave_one_out: dict[tuple[str, Scheme], tuple[float, float]] = {}
    for group, scores in single_layer.items():
        found = _leave_one_out(scorer, all_low, group, scores)
        leave_one_out |= {(group, scheme): value for scheme, value in found.items()}
        on_step(f"{group} restored")

    rows = [
        SensitivityRow(
            group=group,
            scheme=scheme,
            single_layer=single_layer[group].get(scheme, math.nan),
            leave_one_out=leave_one_out.get((group, scheme), _NOT_MEASURED)[0],
            leave_one_out_error=leave_one_out.get((group, scheme), _NOT_MEASURED)[1],
            loss=math.nan,
            dropped=refused.get((group, scheme), ""),
        )
        for group, schemes in offered.items()
        for scheme in schemes
    ]
    return SensitivityTable(divergence_metric=scorer.divergence_metric, samples=scorer.samples, rows=with_losses(rows))


def _schemes(group: PrecisionGroup, precisions: Sequence[Precision]) -> tuple[Scheme, ...]:
    """FP32, then the group's other schemes of allowed precisions."""
    return (FP32, *(scheme for scheme in group.schemes if scheme != FP32 and scheme.precision in precisions))


def _leave_one_out(
    scorer: _Scorer, all_low: Schemes, group: str, single_layer: Mapping[Scheme, float]
) -> dict[Scheme, tuple[float, float]]:
    """Leave-one-out scores of one group and their standard errors; only FP32's where the context cannot be scored.

    The score is infinite where the scheme's output is not finite in this context.
    """
    found = {FP32: (0.0, 0.0)}
    try:
        base = scorer.score({**all_low, group: FP32})
    except _RefusedError:
        return found
    if not np.isfinite(base).all():
        return found
    for scheme in best_of_each_rank(single_layer).values():
        if scheme == FP32:
            continue
        try:
            difference = scorer.score({**all_low, group: scheme}) - base
        except _RefusedError:
            continue  # refused for the sake of its neighbours' schemes: alone it ran
        found[scheme] = _mean_and_error(difference) if np.isfinite(difference).all() else (math.inf, math.nan)
    return found


def _mean_and_error(values: Scores) -> tuple[float, float]:
    if len(values) < 2:
        return float(values.mean()), math.inf
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))


class _RefusedError(Exception):
    """The lowerer or the backend refuses a candidate; FP32's own errors stay what they are.

    Args:
        reason: What it said.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Scorer:
    """Scores artifacts against the FP32 one; runs each at most once, and the FP32 one only when needed.

    Threads are not part of a score's key: they change how fast a score comes, not what it is.
    """

    def __init__(
        self,
        lowerer: SchemeLowerer,
        backend: Backend,
        inputs: Inputs,
        read: Sequence[OutputReading],
        threads: int,
        store: ContentStore,
        batching: Batching,
    ) -> None:
        self._lowerer = lowerer
        self._backend = backend
        self._inputs = inputs
        self._read = read
        self._threads = threads
        self._store = store
        self._batching = batching
        self.samples = sample_count(inputs)
        self._groups = [group.name for group in lowerer.quantisable.groups]
        self._fp32 = lowerer.lower(lowerer.quantisable.spread(dict.fromkeys(self._groups, FP32)))
        self._context = digest(
            *("sensitivity", _SCHEMA, self._fp32.content, dict(inputs), backend.name, backend.fingerprint().to_json()),
            [(reading.kind, reading.axis) for reading in read],
        )
        self._by_schemes: dict[tuple[Scheme, ...], Scores] = {}
        self._by_artifact: dict[str, Scores] = {self._fp32.digest: np.zeros(self.samples)}
        kept = store.get_json(_KIND, self._context)
        self._divergence_metric: str | None = kept["measure"] if kept else None

    @property
    def divergence_metric(self) -> str:
        """The metric that divergences are taken in."""
        if self._divergence_metric is None:
            forms = self._reference.forms
            read = [
                replace(reading, axis=_behind_samples(reading.axis, samples, len(form.shape)))
                for reading, samples, form in zip(self._read, self._reference.axes, forms, strict=True)
            ]
            self._divergence_metric = choose_divergence_metric(read, forms, self.samples)
            self._store.put_json(_KIND, self._context, {"measure": self._divergence_metric})
        return self._divergence_metric

    def score(self, schemes: Schemes) -> Scores:
        """Divergence per sample, (n,), of the artifact for group → scheme from FP32; may be NaN or infinite.

        Raises:
            _RefusedError: If it cannot be written or run.
            BackendError: If FP32 cannot be run, or the backend is gone.
        """
        candidate = tuple(schemes[group] for group in self._groups)
        if candidate not in self._by_schemes:
            try:
                artifact = self._lowerer.lower(self._lowerer.quantisable.spread(schemes))
            except LoweringError as error:
                raise _RefusedError(error.message) from error
            name = artifact.digest
            if name not in self._by_artifact:
                self._by_artifact[name] = self._kept_or_run(
                    artifact, digest(self._context, self.divergence_metric, artifact.digest)
                )
            self._by_schemes[candidate] = self._by_artifact[name]
        return self._by_schemes[candidate]

    def _kept_or_run(self, artifact: Artifact, key: str) -> Scores:
        kept = self._store.get_arrays(_KIND, key)
        if kept is not None:
            return kept["divergence"]
        reference, divergence = self._reference, self._divergence
        try:
            compiled = self._backend.compile(artifact, threads=self._threads)
            parts = [divergence.of(wanted, outputs) for wanted, outputs in reference.beside(compiled)]
        except BackendUnavailableError:
            raise  # a runtime that is gone is no property of the scheme
        except BackendError as error:
            raise _RefusedError(error.message) from error
        found = np.concatenate(parts)
        self._store.put_arrays(_KIND, key, {"divergence": found})
        return found

    @cached_property
    def _reference(self) -> ReferenceOutputs:
        compiled = self._backend.compile(self._fp32, threads=self._threads)
        return ReferenceOutputs(compiled, self._inputs, self._batching)

    @cached_property
    def _divergence(self) -> DivergenceFrom:
        return DivergenceFrom(self.divergence_metric, self._reference.parts)


def _behind_samples(axis: int | None, samples: int | None, rank: int) -> int | None:
    """Position of an output's axis once the sample axis is moved to the front."""
    if axis is None or samples is None or not -rank <= axis < rank:
        return None
    axis %= rank
    return axis + 1 if axis < samples else axis
