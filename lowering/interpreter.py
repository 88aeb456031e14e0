"""The seam to whatever runs graphs while networks are lowered: for their values, never for their speed.

Constant folding, calibration, layer-by-layer rounding and the comparison with the network as given run graphs, but
lowering opens no runtime itself: a ``ReferenceModel`` carries the interpreter that whoever loads it brings
(``backends.registry.default_interpreter``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from bitfront.core import Array, ModelError

if TYPE_CHECKING:
    import onnx


class InterpreterError(ModelError):
    """A graph that the interpreter refused, or that failed when it was run."""


class InterpretedGraph(Protocol):
    """A graph ready to be run."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order."""
        ...

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """The values of the named outputs, of all by default.

        Raises:
            InterpreterError: If the graph fails on these inputs.
        """
        ...


class Interpreter(Protocol):
    """Computes what ONNX graphs answer."""

    @property
    def name(self) -> str:
        """Name in messages: ``ONNX Runtime``."""
        ...

    @property
    def version(self) -> str:
        """Exact version, on which computed values depend: part of cache keys."""
        ...

    def load(
        self, model: onnx.ModelProto | bytes, *, optimised: bool = True, threads: int | None = None
    ) -> InterpretedGraph:
        """Make a graph ready to be run.

        Args:
            model: The model, or its file's bytes.
            optimised: Whether the graph may be rewritten before it is run.
            threads: Threads at most, idle between runs, for short graphs that are run beside other work; None leaves
                the number to the interpreter.

        Raises:
            InterpreterError: If the graph is refused.
        """
        ...
