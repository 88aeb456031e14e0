"""Python objects named on the command line as ``module:attribute`` (``core.naming``): workloads and metrics."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from bitfront.core import (
    METRICS,
    Array,
    EngineError,
    Labelled,
    Metric,
    MetricFunction,
    Workload,
    WorkloadError,
    as_metric,
)
from bitfront.core.metric_spec import metric_of
from bitfront.core.naming import failed, load_attribute
from bitfront.search.inputs.values import as_array, is_sample_list

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
DEFAULT_WORKLOAD = "bitfront.experiments.workloads:digits"
_SCORES = "give one score a sample, (n,), or one number"
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
    """A built-in metric as ``core.metric_spec`` writes it, or the function or ``Metric`` at ``module:function``.

    Raises:
        WorkloadError: If it is unknown or no function.
    """
    metric = metric_of(name, METRICS)
    if metric is not None:
        return metric
    if ":" not in name:
        raise WorkloadError(
            f"--metric: unknown metric '{name}'; built in: {', '.join(METRICS)}",
            "give your own as module:function, called with (outputs, labels)",
        )
    found = load_attribute(name, "--metric", WorkloadError)
    return checked_metric(found, f"--metric: '{name}'")


def call_user_code(what: str, read: Callable[[], T]) -> T:
    """Call a person's own code; whatever it raises (an exit too) becomes an error that names it and the line.

    Raises:
        EngineError: As raised, or made of what was raised.
    """
    try:
        return read()
    except (EngineError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise WorkloadError(failed(what, error), "run it alone in Python to see why") from error


def read_name(workload: Workload, label: str) -> str:
    """The workload's name, which becomes part of a folder's.

    Raises:
        WorkloadError: If it is no text.
    """
    name: object = call_user_code(f"{label}: name", lambda: workload.name)
    if not isinstance(name, str) or not name.strip():
        raise WorkloadError(
            f"{label}: name is {_kind(name)}, expected text that is not empty", "write name = 'my-network'"
        )
    return name


def read_model(workload: Workload, label: str) -> torch.nn.Module | Path:
    """The workload's network.

    Raises:
        WorkloadError: If it is neither a torch module nor a path.
    """
    model: object = call_user_code(f"{label}: model", lambda: workload.model)
    if isinstance(model, str | Path):
        return Path(model)
    loaded = sys.modules.get("torch")  # a module of it can only come from there
    if loaded is None or not isinstance(model, loaded.nn.Module):
        made = "; make an instance of it" if inspect.isclass(model) else ""
        raise WorkloadError(
            f"{label}: model is {_kind(model)}, expected a torch.nn.Module or the path of an ONNX file",
            f"write model = MyNet().eval(), or model = Path('net.onnx'){made}",
        )
    return cast("torch.nn.Module", model)


def read_calibration(workload: Workload, label: str) -> dict[str, Array | list[Array]]:
    """The workload's calibration inputs as arrays of the engine, not yet compared with the network.

    Returns:
        Input name → array, or a list of arrays where it brings samples one by one.

    Raises:
        WorkloadError: If they are no mapping of names.
        DataError: If one is no array of numbers.
    """
    where = f"{label}: calibration"
    found: object = call_user_code(where, lambda: workload.calibration)
    arrays: dict[str, Array | list[Array]] = {}
    for name, value in named_arrays(found, where).items():
        place = f"'{where}': array '{name}'"
        if is_sample_list(value):
            arrays[name] = [as_array(sample, f"{place}: sample {index}") for index, sample in enumerate(value)]
        else:
            arrays[name] = as_array(value, place)
    return arrays


def read_evaluation(workload: Workload, label: str) -> tuple[dict[str, object], object]:
    """The workload's evaluation inputs and their labels, as they are.

    Raises:
        WorkloadError: If they are not ``Labelled``.
    """
    where = f"{label}: evaluation"
    found: object = call_user_code(where, lambda: workload.evaluation)
    if not isinstance(found, Labelled):
        raise WorkloadError(
            f"{where} is {_kind(found)}, expected bitfront.core.Labelled",
            "from bitfront.core import Labelled, and write Labelled(inputs={'input': x}, labels=y)",
        )
    return named_arrays(found.inputs, f"{where}.inputs"), found.labels


def read_batch_size(workload: Workload, label: str) -> int | None:
    """Samples per timed inference that the workload asks for; None leaves it open.

    Raises:
        WorkloadError: If it is no positive whole number.
    """
    wish: object = call_user_code(f"{label}: batch_size", lambda: getattr(workload, "batch_size", None))
    if wish is None:
        return None
    if isinstance(wish, bool) or not isinstance(wish, int | np.integer) or wish < 1:
        raise WorkloadError(f"{label}: expected a positive whole batch_size, got {wish!r}", "write batch_size = 8")
    return int(wish)


def read_state(workload: Workload, label: str) -> dict[str, str]:
    """Output → the input that it feeds at the next step; empty where samples are no sequences.

    Raises:
        WorkloadError: If it is no mapping of names.
    """
    found: object = call_user_code(f"{label}: state", lambda: getattr(workload, "state", None) or {})
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for pair in found.items() for name in pair):
        raise WorkloadError(
            f"{label}: state is {_kind(found)}, expected a mapping of output to input",
            "write state = {'stateN': 'state'}",
        )
    return dict(found)


def read_metric(workload: Workload, label: str) -> Metric:
    """The workload's metric.

    Raises:
        WorkloadError: If it is no function of outputs and labels, or was written as a method without ``self``.
    """
    where = f"{label}: metric"
    metric: object = call_user_code(where, lambda: workload.metric)
    if isinstance(metric, str):
        return load_metric(metric)
    return checked_metric(metric, where)


def checked_metric(metric: object, where: str) -> Metric:
    """A person's metric as a value.

    Args:
        metric: A ``Metric``, or a function of outputs and labels.
        where: Names it in messages.

    Raises:
        WorkloadError: If it cannot be called with (outputs, labels), or declares what makes no sense.
    """
    _check_callable(metric.compute if isinstance(metric, Metric) else metric, where)
    return call_user_code(where, lambda: as_metric(cast("Metric | MetricFunction", metric)))


def _check_callable(metric: object, where: str) -> None:
    if not callable(metric) or inspect.isclass(metric):
        what = f"the class {metric.__name__}" if inspect.isclass(metric) else _kind(metric)
        raise WorkloadError(f"{where} is {what}, expected a function (outputs, labels) -> scores", _SCORES)
    if inspect.iscoroutinefunction(metric) or inspect.isgeneratorfunction(metric):
        kind = "an async function" if inspect.iscoroutinefunction(metric) else "a generator"
        raise WorkloadError(f"{where} is {kind}, expected one that returns the scores", _SCORES)
    try:
        signature = inspect.signature(metric)
    except (TypeError, ValueError):
        return  # a callable that does not say
    try:
        signature.bind((), ())
    except TypeError as error:
        function = getattr(metric, "__func__", None)
        if function is not None and _takes_two(function):
            raise WorkloadError(
                f"{where}: '{function.__name__}' takes (outputs, labels), but as an attribute of a class it became a "
                "method, and gets the object before them",
                f"write metric = staticmethod({function.__name__})",
            ) from error
        raise WorkloadError(
            f"{where}: {getattr(metric, '__name__', _kind(metric))}{signature} cannot be called with (outputs, labels)",
            _SCORES,
        ) from error


def _takes_two(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind((), ())
    except (TypeError, ValueError):
        return False
    return True


def named_arrays(found: object, where: str) -> dict[str, object]:
    """A mapping from names as a person brings it.

    Raises:
        WorkloadError: If it is none, or a key is no text.
    """
    if not isinstance(found, Mapping):
        raise WorkloadError(
            f"{where} is {_kind(found)}, expected a mapping of arrays",
            "write {'input': x}, one array per network input with all samples in it",
        )
    arrays: dict[str, object] = call_user_code(where, lambda: dict(found))
    for name in arrays:
        if not isinstance(name, str):
            raise WorkloadError(
                f"{where}: has the key {name!r}, expected names of the network's inputs",
                "write each name as text, {'input': x}; 'search inspect' lists those of an ONNX file",
            )
    return arrays


def _kind(found: object) -> str:
    name = type(found).__name__
    return "None" if found is None else f"{'an' if name[0] in 'AEIOUaeiou' or name == 'ndarray' else 'a'} {name}"


def _is_workload(found: object) -> bool:
    # Looked up without evaluating properties: reading ``model`` may load or train it.
    if inspect.isclass(found) or inspect.isroutine(found):
        return False
    return not _missing_parts(found)


def _missing_parts(found: object) -> list[str]:
    missing = object()
    return [part for part in _PARTS if inspect.getattr_static(found, part, missing) is missing]


def _no_workload(name: str, found: object) -> WorkloadError:
    if inspect.iscoroutine(found):
        found.close()
    lacks = _missing_parts(found)
    without = f" without {', '.join(lacks)}" if 0 < len(lacks) < len(_PARTS) else ""
    return WorkloadError(
        f"--workload: '{name}' gave {_kind(found)}{without}, expected an object with {', '.join(_PARTS)}",
        "help(bitfront.core.Workload) says what each of them is",
    )


def _call(make: Callable[..., object], name: str, data: Path | None) -> object:
    parameters = _parameters(make)
    if not parameters and data is not None:
        raise WorkloadError(
            f"--data: '{name}' takes no arguments, so it takes no folder", "leave --data out, or write make(data)"
        )
    return call_user_code(f"--workload: '{name}'", lambda: make(data) if parameters else make())


def _parameters(make: Callable[..., object]) -> int:
    try:
        return len(inspect.signature(make).parameters)
    except (TypeError, ValueError):
        return 1  # a callable that does not say: call it as the contract has it
