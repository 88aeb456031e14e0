"""Python objects named on the command line as ``module:attribute`` (``precision.naming``): workloads and metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from precision import EngineError, Metric, Workload, WorkloadError, top1
from precision.naming import failed, load_attribute

T = TypeVar("T")
DEFAULT_WORKLOAD = "experiments.workloads:digits"
METRICS: dict[str, Metric] = {"top1": top1}
_PARTS = ("name", "model", "calibration", "evaluation", "metric")


def load_workload(name: str, data: Path | None) -> Workload:
    """The workload at ``module:attribute``.

    Args:
        name: A ``Workload``, or a callable ``make(data) -> Workload``.
        data: Folder passed to a callable; None where none was given.

    Raises:
        WorkloadError: If there is no such module or attribute, it is no workload, or its code fails.
    """
    found = load_attribute(name, "--workload", WorkloadError)
    if _is_workload(found):
        if data is not None:
            raise WorkloadError(
                f"--data: workload '{name}' is no callable, so it takes no folder",
                "leave --data out, or make the attribute a function make(data) that returns the workload",
            )
        return cast(Workload, found)
    if not callable(found):
        raise _no_workload(name, found)
    made = _call(cast("Callable[..., object]", found), name, data)
    if not _is_workload(made):
        raise _no_workload(name, made)
    return cast(Workload, made)


def load_metric(name: str) -> Metric:
    """A built-in metric, or the function at ``module:function``.

    Raises:
        WorkloadError: If it is unknown or no function.
    """
    if name in METRICS:
        return METRICS[name]
    if ":" not in name:
        raise WorkloadError(
            f"--metric: unknown metric '{name}'; built in: {', '.join(METRICS)}",
            "give your own as module:function, called with (outputs, labels)",
        )
    found = load_attribute(name, "--metric", WorkloadError)
    if not callable(found):
        raise WorkloadError(
            f"--metric: '{name}' is a {type(found).__name__}, expected a function (outputs, labels) -> scores"
        )
    return cast(Metric, found)


def own_code(what: str, read: Callable[[], T]) -> T:
    """What a person's own code gives; whatever it raises names it and the line.

    Raises:
        EngineError: As raised, or made of what was raised.
    """
    try:
        return read()
    except EngineError:
        raise
    except Exception as error:
        raise WorkloadError(failed(what, error), "run it alone in Python to see why") from error


def _is_workload(found: object) -> bool:
    # Looked up without evaluating properties: reading ``model`` may load or train it.
    if inspect.isclass(found) or inspect.isroutine(found):
        return False
    missing = object()
    return all(inspect.getattr_static(found, part, missing) is not missing for part in _PARTS)


def _no_workload(name: str, found: object) -> WorkloadError:
    return WorkloadError(
        f"--workload: '{name}' gave a {type(found).__name__}, expected an object with {', '.join(_PARTS)}",
        "see precision/workload.py for what each of them is",
    )


def _call(make: Callable[..., object], name: str, data: Path | None) -> object:
    parameters = _parameters(make)
    if not parameters and data is not None:
        raise WorkloadError(
            f"--data: '{name}' takes no arguments, so it takes no folder", "leave --data out, or write make(data)"
        )
    return own_code(f"--workload: '{name}'", lambda: make(data) if parameters else make())


def _parameters(make: Callable[..., object]) -> int:
    try:
        return len(inspect.signature(make).parameters)
    except (TypeError, ValueError):
        return 1  # a callable that does not say: call it as the contract has it
