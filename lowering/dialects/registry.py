"""Dialects by name; one of another package goes by ``module:attribute``, where a person says so.

A file never does: its author's code would run on the machine of whoever opens it. So ``dialect_of_config`` takes a
``module:attribute`` from a config only where the same was given beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from bitfront.core import ConfigError, UsageError
from bitfront.core.json_text import shown
from bitfront.core.naming import failed, load_attribute
from bitfront.lowering.dialect import Dialect

_DIALECTS: Mapping[str, str] = {
    "ort-cpu": "bitfront.lowering.dialects.ort_cpu:OrtCpuDialect",
    "tensorrt": "bitfront.lowering.dialects.tensorrt:TensorRtDialect",
    "ort-cuda": "bitfront.lowering.dialects.ort_cuda:OrtCudaDialect",
    "openvino": "bitfront.lowering.dialects.openvino:OpenVinoDialect",
}
# Nothing that a shell would read otherwise is ever proposed to be typed.
_NAMES_CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def get_dialect(name: str) -> Dialect:
    """The dialect called ``name`` by a person or by a backend's code; not for names out of files.

    Args:
        name: One of the table's, or ``module:attribute`` of a class or function that makes one.

    Raises:
        UsageError: If there is none.
    """
    place = _DIALECTS.get(name, name)
    if ":" not in place:
        raise UsageError(f"unknown dialect '{name}'", f"known dialects: {', '.join(sorted(_DIALECTS))}")
    make = load_attribute(place, "dialect")
    try:
        dialect: Dialect = make()
    except Exception as error:  # a person's own code may raise anything
        raise UsageError(failed(f"dialect '{name}'", error), "run it alone in Python to see why") from error
    lacking = [part for part in ("name", "schemes", "write") if not hasattr(dialect, part)]
    if lacking:
        raise UsageError(
            f"dialect '{name}': expected a class or function that makes one, got a {type(dialect).__name__} without "
            f"{', '.join(lacking)}",
            "name the dialect's class",
        )
    return dialect


def dialect_of_config(name: str, given: str | None) -> Dialect:
    """The dialect that a config names.

    Args:
        name: What the config says.
        given: The dialect that a person named; None where none was.

    Raises:
        ConfigError: If it is none of the table's and was not given, or another one was given.
        UsageError: If the one given cannot be loaded.
    """
    known = ", ".join(sorted(_DIALECTS))
    if given is None:
        if name in _DIALECTS:
            return get_dialect(name)
        raise ConfigError(
            f"the config is written for dialect {shown(name)}, which is none of this program's ({known})",
            f"if you know and trust the package that it comes from, add --dialect {name}"
            if _NAMES_CODE.fullmatch(name)
            else "give a config that names one of these",
        )
    dialect = get_dialect(given)
    if name not in (given, dialect.name):
        raise ConfigError(
            f"the config is written for dialect {shown(name)}, and --dialect names '{given}'",
            "leave --dialect out" if name in _DIALECTS else "name the config's own dialect, if you trust its code",
        )
    return dialect
