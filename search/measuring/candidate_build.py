"""A candidate's artifact, written and compiled when first needed and at most once; what failed is remembered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bitfront.backends.base import CompiledModel
from bitfront.core import Artifact, BackendError, LoweringError
from bitfront.search.measuring.measurement_cache import Lowered
from bitfront.search.measuring.runner import ModelRunner
from bitfront.search.trial import Candidate


class CandidateBuild:
    """Artifact of a candidate.

    Args:
        runner: Writes and compiles.
        candidate: What is built.

    Raises:
        LoweringError: If the candidate's network could not be made.

    Attributes:
        candidate: As given.
    """

    def __init__(self, runner: ModelRunner, candidate: Candidate) -> None:
        self.candidate = candidate
        self._runner = runner
        self._layers = runner.layers(candidate)
        self._variant = candidate.variant
        self._artifact: Artifact | None = None
        self._compiled: CompiledModel | None = None
        self._to_score: CompiledModel | None = None

    def lowered(self) -> Lowered:
        """Digest and size of the artifact, from the measurements if there, else of the one written now and kept."""
        lowered = self._runner.measurements.lowered(self._layers, self._variant)
        if lowered is None:
            artifact = self._written()
            lowered = Lowered(artifact=artifact.digest, size_bytes=artifact.size_bytes)
            self._runner.measurements.put_lowered(self._layers, lowered, self._variant)
        return lowered

    def compiled(self) -> CompiledModel:
        """Compiled artifact as it is timed."""
        if self._compiled is None:
            artifact = self._written()
            with self._noting():
                self._compiled = self._runner.compile(artifact)
        return self._compiled

    def scored(self) -> CompiledModel:
        """Compiled artifact as it is scored; it has been timed, so that what was compiled for that is let go."""
        self._compiled = None
        if self._to_score is None:
            artifact = self._written()
            with self._noting():
                self._to_score = self._runner.compile_to_score(artifact)
        return self._to_score

    def _written(self) -> Artifact:
        if self._artifact is None:
            with self._noting():
                self._artifact = self._runner.lower(self._layers, self._variant)
        return self._artifact

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except (LoweringError, BackendError) as error:
            failed = Lowered(artifact="", size_bytes=0, failure=error.message)
            self._runner.measurements.put_lowered(self._layers, failed, self._variant)
            raise
