"""Options of a pass as JSON: the fields of its dataclass, nothing else.

Handled: bool, int, float, str, enums, other such dataclasses, ``X | None``, ``tuple[X, ...]`` and
``Mapping[str, X]``. Not handled: everything else, on purpose. A field that is missing has its default, so a config
written before a field existed still reads.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from bitfront.core import ConfigError

T = TypeVar("T")


def options_to_json(options: Any) -> dict[str, Any]:
    """Each field of a dataclass as plain JSON, mappings by ascending key."""
    return {field.name: _plain(getattr(options, field.name)) for field in dataclasses.fields(options)}


def options_from_json(kind: type[T], data: Any, where: str) -> T:
    """Read what ``options_to_json`` wrote.

    Args:
        kind: The dataclass.
        data: Its JSON.
        where: What is being read, for messages: ``pass 'prune'``.

    Raises:
        ConfigError: If a field is unknown, missing without a default, or has the wrong type or value.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(data, Mapping) or set(data) - set(fields):
        raise ConfigError(
            f"{where}: expected an object with {', '.join(fields)}, got {data!r}", "write these options, and no others"
        )
    hints = typing.get_type_hints(kind)
    values = {name: _value(hints[name], data[name], f"{where}, {name}") for name in fields if name in data}
    try:
        return kind(**values)
    except TypeError as error:
        missing = [name for name, field in fields.items() if name not in data and _required(field)]
        raise ConfigError(f"{where}: {', '.join(missing)} missing", "write these options") from error


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return options_to_json(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _value(hint: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _value(inner, data, where)
    if origin is tuple and isinstance(data, list):
        return tuple(_value(arguments[0], item, where) for item in data)
    if origin in (dict, Mapping) and isinstance(data, Mapping):
        return {str(key): _value(arguments[1], data[key], f"{where}['{key}']") for key in data}
    if isinstance(hint, type):
        if dataclasses.is_dataclass(hint):
            return options_from_json(hint, data, where)
        if issubclass(hint, Enum):
            try:
                return hint(data)
            except ValueError as error:
                known = ", ".join(str(member.value) for member in hint)
                raise ConfigError(f"{where}: expected one of {known}, got {data!r}", "write one of these") from error
        if hint is float and isinstance(data, int | float) and not isinstance(data, bool):
            return float(data)
        if type(data) is hint:
            return data
    raise ConfigError(
        f"{where}: expected {getattr(hint, '__name__', hint)}, got {data!r}", "write a value of that type, unquoted"
    )
