"""Sessions of ONNX Runtime, whatever the provider: opening one without silent fall-backs, and the model over it.

Two fall-backs are switched off. A provider that cannot start is left out by the runtime with a line on stderr, so what
a session got is compared with what was asked for. A session whose provider fails is made anew on the processor by the
Python wrapper, so that is disabled (``enable_fallback``).

``session.disable_cpu_ep_fallback`` is not used: it refuses every network with a single node of the main graph on the
processor (onnxruntime pull request 16016), and those that compute shapes and branches belong there. How many nodes ran
where is in ``profile``.

``run`` hands inputs straight to the runtime, so that timing sees the runtime; only after a failure are they looked
at, to say which one was wrong.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from bitfront.backends.base import Clock, ExecutedLayer, Timer
from bitfront.backends.host import HostModel, host_timer
from bitfront.backends.inputs import InputSpec, wrong_input
from bitfront.backends.ort.bfloat16 import BFloat16Feeds, as_float32, has_bfloat16
from bitfront.backends.ort.package import load_onnxruntime, ort_errors
from bitfront.backends.ort.profile import parse_profile
from bitfront.core import Array, BackendError, Inputs
from bitfront.core.formatting import first_line
from bitfront.core.temporary import temporary_folder

CPU_PROVIDER = "CPUExecutionProvider"
_SILENT = 4  # what fails is raised, and said by the caller
_NUMPY_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "float32",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}
_PROFILED_RUNS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSetup:
    """The set-up of a session: providers, threads, settings.

    Attributes:
        extra: The extra that installs the flavour of ONNX Runtime wanted, for hints.
        providers: Execution providers with their options, the preferred one first; the runtime adds the processor last.
        threads: Intra-operator threads on the processor.
        left_out: Graph optimisations that are not made.
        settings: Session config entries, key → value, that the model is run with.
        folder: Where the model's external data lies; None where it has none.
    """

    extra: str
    providers: tuple[tuple[str, Mapping[str, str]], ...]
    threads: int = 1
    left_out: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def preferred(self) -> str:
        """Name of the provider that has to be there."""
        return self.providers[0][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFiles:
    """Files that a session writes besides its results.

    Attributes:
        optimised: Where the runtime writes the graph it made.
        profile: Beginning of the path of the profile it writes.
    """

    optimised: Path | None = None
    profile: Path | None = None


def start_session(
    model: bytes, setup: SessionSetup, *, level: str = "ORT_ENABLE_ALL", files: SessionFiles | None = None
) -> Any:
    """A session of ONNX Runtime.

    Args:
        model: The bytes.
        setup: What it runs on.
        level: Name of the graph optimisation level; the default is the runtime's own.
        files: What it writes besides.

    Raises:
        BackendError: If the runtime refuses the model, or leaves the preferred provider out.
        BackendUnavailableError: If ONNX Runtime is missing.
    """
    onnxruntime = load_onnxruntime(setup.extra)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setup.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = _SILENT
    for key, value in setup.settings.items():
        options.add_session_config_entry(key, value)
    if setup.folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(setup.folder))
    if files is not None and files.optimised is not None:
        if setup.folder is not None:  # what is too large for one file stays so
            options.add_session_config_entry(
                "session.optimized_model_external_initializers_file_name", f"{files.optimised.name}.data"
            )
        options.optimized_model_filepath = str(files.optimised)
    if files is not None and files.profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(files.profile)
    try:
        session = onnxruntime.InferenceSession(
            model,
            options,
            providers=[(name, dict(given)) for name, given in setup.providers],
            disabled_optimizers=list(setup.left_out),
            enable_fallback=0,
        )
    except ort_errors() as error:
        raise BackendError(
            f"ONNX Runtime refused a model of {len(model)} bytes: {first_line(error)}",
            "check the model with onnx.checker; operators this runtime lacks cannot be run here",
        ) from error
    # A provider that cannot start is left out silently, so what was asked for says nothing.
    running = list(session.get_providers())
    if not running or running[0] != setup.preferred:
        raise BackendError(
            f"ONNX Runtime: expected to run on {setup.preferred}, got {', '.join(running) or 'nothing'}",
            "install what the provider needs, 'search backends' says what; or choose another --backend",
        )
    return session


class SessionModel(HostModel):
    """A session of ONNX Runtime.

    Args:
        session: The session.
        model: The bytes it was made from, for ``operators`` and ``profile``.
        name: The backend's name, for messages.
        setup: What the session runs on.
        kept: Closed with the model: what its external data needs.
    """

    def __init__(
        self, session: Any, model: bytes, name: str, setup: SessionSetup, kept: ExitStack | None = None
    ) -> None:
        self._session = session
        self._model = model
        self._name = name
        self._setup = setup
        self._errors = ort_errors()
        self._bfloat16 = has_bfloat16(session)
        if kept is not None:
            weakref.finalize(self, kept.close)

    @cached_property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Input name → shape; None for a dynamic axis."""
        return {
            value.name: tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
            for value in self._session.get_inputs()
        }

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the model's order."""
        return tuple(value.name for value in self._session.get_outputs())

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """The outputs of one synchronous run, in order; BF16 is float32 on both sides.

        Raises:
            BackendError: If an input's name, type or shape is wrong, or the runtime fails.
        """
        try:
            if self._bfloat16:
                return tuple(map(as_float32, BFloat16Feeds(self._session, inputs, self._setup.extra).run()))
            return tuple(self._session.run(None, dict(inputs)))
        except self._errors as error:
            raise self._explained(error, inputs) from error

    def timer(self, inputs: Inputs, clock: Clock) -> Timer:
        """A timer that reads the clock after every run; BF16 is converted before the first."""
        if not self._bfloat16:
            return super().timer(inputs, clock)
        self.run(inputs)  # says what is wrong with them
        return host_timer(BFloat16Feeds(self._session, inputs, self._setup.extra).bound(), clock)

    def operators(self) -> tuple[str, ...]:
        """Operator types left after the runtime's own optimisation, in execution order; bodies follow their owner."""
        return self._operators

    @cached_property
    def _operators(self) -> tuple[str, ...]:
        with temporary_folder() as folder:
            path = folder / "optimised.onnx"
            start_session(self._model, self._setup, files=SessionFiles(optimised=path))
            return tuple(_operator_types(onnx.load_model(path, load_external_data=False).graph))

    def profile(self, inputs: Inputs) -> tuple[ExecutedLayer, ...]:
        """Operators that ran, on which provider and how long, by the runtime's profiler; ``detail`` is the provider.

        Raises:
            BackendError: If an input's name, type or shape is wrong, or the runtime fails.
        """
        with temporary_folder() as folder:
            session = start_session(self._model, self._setup, files=SessionFiles(profile=folder / "profile"))
            try:
                for _ in range(1 + _PROFILED_RUNS):
                    if self._bfloat16:
                        BFloat16Feeds(session, inputs, self._setup.extra).run()
                    else:
                        session.run(None, dict(inputs))
                written = session.end_profiling()
                return parse_profile(Path(written).read_text(encoding="utf-8"), skipped_runs=1)
            except self._errors as error:
                raise self._explained(error, inputs) from error

    def _explained(self, error: Exception, inputs: Inputs) -> BackendError:
        """The error of ours that says what a failure of the runtime was about."""
        reason = wrong_input(self._specs, inputs) or f"running the model failed: {first_line(error)}"
        return BackendError(f"{self._name}: {reason}", "give one array per input of the network, in its type and shape")

    @cached_property
    def _specs(self) -> Mapping[str, InputSpec]:
        return {
            value.name: InputSpec(shape=self.input_shapes[value.name], dtype=_dtype(value.type))
            for value in self._session.get_inputs()
        }


def _dtype(kind: str) -> str:
    return _NUMPY_TYPES.get(kind, kind.removeprefix("tensor(").removesuffix(")"))


def _operator_types(graph: onnx.GraphProto) -> list[str]:
    types = []
    for node in graph.node:
        types.append(node.op_type)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                types.extend(_operator_types(body))
    return types
