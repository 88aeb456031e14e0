"""Calls of torch modules with inputs that have names, and the named tensors in whatever they return.

Inputs whose names are parameters of ``forward`` are passed as these. Where no name is a parameter, they are passed in
order, if ``forward`` leaves no doubt what each of them is. Names of which only some are parameters are an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter
from typing import TYPE_CHECKING, Any, TypeVar

from bitfront.core import ModelError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_PLACED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def arguments(module: torch.nn.Module, inputs: Mapping[str, T]) -> tuple[tuple[T, ...], dict[str, T]]:
    """Inputs as arguments of ``forward``: those in order, and those by keyword, in the order of its parameters.

    Raises:
        ModelError: If a name is no parameter, or a parameter that must be given is missing.
    """
    signature = _signature(module)
    if signature is None:
        return tuple(inputs.values()), {}
    parameters = signature.parameters.values()
    placed = [parameter for parameter in parameters if parameter.kind in _PLACED]
    named = {parameter.name: parameter for parameter in parameters if parameter.kind in (*_PLACED, _KEYWORD)}
    rest = any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters)
    unknown = [name for name in inputs if name not in named]
    if not named and not rest:
        return (), dict(inputs)  # keywords of any name
    needed = [parameter.name for parameter in named.values() if parameter.default is Parameter.empty]
    if len(unknown) == len(inputs):
        if not _is_plain(len(inputs), len(placed), len(needed), rest=rest):
            raise _unknown(module, unknown, named)
        return tuple(inputs.values()), {}
    if unknown and not (rest and all(parameter.name in inputs for parameter in placed)):
        raise _unknown(module, unknown, named)
    missing = [name for name in needed if name not in inputs]
    if missing:
        raise ModelError(
            f"forward of {type(module).__name__} needs '{missing[0]}', and the inputs are {_listed(inputs)}",
            f"add '{missing[0]}' to the inputs; its parameters are {_listed(named)}",
        )
    return _placed_and_keyed(placed, named, inputs, unknown)


def call(module: torch.nn.Module, inputs: Mapping[str, Any]) -> Any:
    """Outputs of a module for inputs by name; caches of past tokens that it would keep are off.

    Raises:
        ModelError: As ``arguments``.
    """
    placed, keyed = arguments(module, inputs)
    with caches_off(module):
        return module(*placed, **keyed)


def in_order(module: torch.nn.Module, inputs: Mapping[str, T]) -> tuple[Any, ...]:
    """Inputs as arguments in order, with the defaults of parameters in between, for what runs a traced ``forward``.

    Raises:
        ModelError: As ``arguments``.
    """
    placed, keyed = arguments(module, inputs)
    signature = _signature(module)
    if signature is None or not keyed:
        return placed
    last = max(place for place, name in enumerate(signature.parameters) if name in keyed)
    others = list(signature.parameters.values())[len(placed) : last + 1]
    return (*placed, *(keyed.get(parameter.name, parameter.default) for parameter in others))


def named_tensors(outputs: object, name: str = "") -> dict[str, torch.Tensor]:
    """Path → tensor, of all tensors in whatever a module returns: ``logits``, ``hidden_states.0``.

    Mappings, dataclasses, named tuples, tuples and lists are looked into; anything else, as None and caches, is passed
    over. A path begins with ``output_0``, ``output_1``, … in a plain tuple, and is ``output`` for a tensor by itself.
    """
    import torch

    if isinstance(outputs, torch.Tensor):
        return {name or "output": outputs}
    found: dict[str, torch.Tensor] = {}
    for key, part in _parts(outputs):
        path = f"{name}.{key}" if name else f"output_{key}" if isinstance(key, int) else str(key)
        found |= named_tensors(part, path)
    return found


def has_names(outputs: object) -> bool:
    """Whether a module's outputs have names of their own, or are in forms that exporters do not look into."""
    if isinstance(outputs, tuple | list) and not hasattr(outputs, "_fields"):
        return any(has_names(part) for part in outputs)
    return any(True for _ in _parts(outputs))


@contextmanager
def caches_off(module: torch.nn.Module) -> Iterator[None]:
    """Modules whose configuration asks for a cache of past tokens keep none; it asks for it again afterwards."""
    configs = [config for part in module.modules() if (config := getattr(part, "config", None)) is not None]
    changed = {id(config): config for config in configs if getattr(config, "use_cache", None) is True}
    for config in changed.values():
        config.use_cache = False
    try:
        yield
    finally:
        for config in changed.values():
            config.use_cache = True


def bound(module: torch.nn.Module, placed: tuple[T, ...], keyed: Mapping[str, T]) -> Any:
    """Values, one for each argument, as PyTorch's exporter wants them: by the parameters they are passed as."""
    signature = _signature(module)
    return placed if signature is None else dict(signature.bind(*placed, **keyed).arguments)


_KEYWORD = Parameter.KEYWORD_ONLY


def _signature(module: torch.nn.Module) -> inspect.Signature | None:
    """Signature of ``forward``; None where it does not tell its parameters, as that of a TorchScript module."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return None
    try:
        return inspect.signature(module.forward)
    except (TypeError, ValueError):
        return None


def _is_plain(count: int, placed: int, needed: int, *, rest: bool) -> bool:
    """Whether there is one way to pass inputs in order: all parameters, or all that must be given."""
    return count >= needed if rest else count in (placed, needed) and count <= placed


def _placed_and_keyed(
    placed: list[Parameter], named: Mapping[str, Parameter], inputs: Mapping[str, T], unknown: list[str]
) -> tuple[tuple[T, ...], dict[str, T]]:
    # Parameters before the last one that takes no keyword go by their place, those left out with their defaults.
    last = max(
        (
            place
            for place, parameter in enumerate(placed)
            if parameter.name in inputs and (unknown or parameter.kind is Parameter.POSITIONAL_ONLY)
        ),
        default=-1,
    )
    while last + 1 < len(placed) and placed[last + 1].name in inputs:
        last += 1
    front = tuple(inputs.get(parameter.name, parameter.default) for parameter in placed[: last + 1])
    keyed = [name for name in named if name in inputs and all(name != one.name for one in placed[: last + 1])]
    return (*front, *(inputs[name] for name in unknown)), {name: inputs[name] for name in keyed}


def _parts(outputs: object) -> Iterator[tuple[object, object]]:
    """(name or place, part) of what a module returns."""
    if isinstance(outputs, Mapping):
        yield from outputs.items()
    elif dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        yield from ((field.name, getattr(outputs, field.name)) for field in dataclasses.fields(outputs))
    elif isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        yield from zip(outputs._fields, outputs, strict=True)
    elif isinstance(outputs, tuple | list):
        yield from enumerate(outputs)


def _unknown(module: torch.nn.Module, unknown: list[str], named: Mapping[str, object]) -> ModelError:
    close = difflib.get_close_matches(unknown[0], named, n=1)
    meant = f"'{close[0]}' may be meant; " if close else ""
    return ModelError(
        f"forward of {type(module).__name__} has no parameter '{unknown[0]}'; its parameters are {_listed(named)}",
        f"{meant}name the inputs as forward's parameters",
    )


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(f"'{name}'" for name in names)
