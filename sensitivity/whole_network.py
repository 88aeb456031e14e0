"""Scores of schemes by running the artifact of the whole network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitfront.backends.base import Backend
from bitfront.backends.batches import sample_count
from bitfront.core import (
    FP32,
    Artifact,
    BackendError,
    BackendUnavailableError,
    Batching,
    ContentStore,
    Inputs,
    LoweringError,
    Scheme,
    digest,
)
from bitfront.sensitivity.divergence import DivergenceFrom
from bitfront.sensitivity.divergence_metric import OutputReading, choose_divergence_metric
from bitfront.sensitivity.reference_outputs import ReferenceOutputs
from bitfront.sensitivity.scheme_lowerer import SchemeLowerer

_SCHEMA = 2
_KIND = "sensitivity"

Schemes = dict[str, Scheme]
Scores = NDArray[np.float64]  # one a sample


def mean_and_error(values: Scores) -> tuple[float, float]:
    """Mean of samples' values, and its standard error; infinite where a single sample gives none."""
    if len(values) < 2:
        return float(values.mean()), math.inf
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))


class RefusedError(Exception):
    """The lowerer or the backend refuses a candidate; FP32's own errors stay what they are.

    Args:
        reason: What it said.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class WholeNetworkScorer:
    """Scores artifacts against the FP32 one; runs each at most once, and the FP32 one only when needed.

    Threads are not part of a score's key: they change how fast a score comes, not what it is.

    Attributes:
        samples: How many each score is taken on.
        context: Digest of what scores depend on, the schemes aside.
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
        self.context = digest(
            *("sensitivity", _SCHEMA, self._fp32.content, dict(inputs), backend.name, backend.fingerprint().to_json()),
            [(reading.kind, reading.axis) for reading in read],
        )
        self._by_schemes: dict[tuple[Scheme, ...], Scores] = {}
        self._by_artifact: dict[str, Scores] = {self._fp32.digest: np.zeros(self.samples)}
        kept = store.get_json(_KIND, self.context)
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
            self._store.put_json(_KIND, self.context, {"measure": self._divergence_metric})
        return self._divergence_metric

    def score(self, schemes: Schemes) -> Scores:
        """Divergence per sample, (n,), of the artifact for group → scheme from FP32; may be NaN or infinite.

        Raises:
            RefusedError: If it cannot be written or run.
            BackendError: If FP32 cannot be run, or the backend is gone.
        """
        candidate = tuple(schemes[group] for group in self._groups)
        if candidate not in self._by_schemes:
            try:
                artifact = self._lowerer.lower(self._lowerer.quantisable.spread(schemes))
            except LoweringError as error:
                raise RefusedError(error.message) from error
            name = artifact.digest
            if name not in self._by_artifact:
                self._by_artifact[name] = self._kept_or_run(
                    artifact, digest(self.context, self.divergence_metric, artifact.digest)
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
            raise RefusedError(error.message) from error
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
