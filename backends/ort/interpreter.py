"""ONNX Runtime's processor provider as the interpreter that lowering runs graphs in (``lowering.interpreter``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitfront.backends.ort.bfloat16 import BFloat16Feeds, has_bfloat16
from bitfront.backends.ort.package import load_onnxruntime, ort_errors
from bitfront.core import Array
from bitfront.lowering.interpreter import InterpretedGraph, InterpreterError
from bitfront.lowering.weight_files import LIMIT, ROOT, detached_bytes, has_detached

if TYPE_CHECKING:
    import onnx

_EXTRA = "cpu"
_FOLDER = "session.model_external_initializers_file_folder_path"
_SILENT = 4  # what fails is raised, and said by the caller


@dataclass(frozen=True, slots=True)
class OrtGraph:
    """A session of ONNX Runtime on the processor.

    Attributes:
        session: The session.
    """

    session: Any

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order."""
        return tuple(value.name for value in self.session.get_outputs())

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """The values of the named outputs, of all by default; a BF16 input may be float32.

        Raises:
            InterpreterError: If the graph fails on these inputs.
        """
        with _interpreter_errors():
            if has_bfloat16(self.session):
                return BFloat16Feeds(self.session, feeds, _EXTRA).run(outputs)
            found: list[Array] = self.session.run(outputs, dict(feeds))
        return found


@dataclass(frozen=True, slots=True)
class OrtInterpreter:
    """ONNX Runtime on the processor; it is imported at the first use."""

    name = "ONNX Runtime"

    @property
    def version(self) -> str:
        """Version of ONNX Runtime.

        Raises:
            BackendUnavailableError: If it is missing.
        """
        return str(load_onnxruntime(_EXTRA).__version__)

    def load(
        self, model: onnx.ModelProto | bytes, *, optimised: bool = True, threads: int | None = None
    ) -> InterpretedGraph:
        """A session for a model.

        Raises:
            BackendUnavailableError: If ONNX Runtime is missing.
            InterpreterError: If it refuses the model.
        """
        onnxruntime = load_onnxruntime(_EXTRA)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _SILENT
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        data = model if isinstance(model, bytes) else model.SerializeToString()
        if not isinstance(model, bytes) and has_detached(model):
            options.add_session_config_entry(_FOLDER, str(ROOT))
            if not optimised or detached_bytes(model) > LIMIT:
                # The runtime then computes on the mapped weights instead of on copies that it rearranged.
                options.add_session_config_entry("session.disable_prepacking", "1")
        with _interpreter_errors():
            return OrtGraph(onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]))


@contextmanager
def _interpreter_errors() -> Iterator[None]:
    """Turn what ONNX Runtime raises into an ``InterpreterError`` with its text."""
    try:
        yield
    except ort_errors() as error:
        raise InterpreterError(str(error).strip() or type(error).__name__) from error
