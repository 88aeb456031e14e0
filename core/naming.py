"""Python objects named as ``module:attribute``: workloads, metrics, backends and dialects of other packages.

Modules are found as Python finds them, with the working directory searched last, so a ``my_module.py`` beside the
person works and cannot shadow an installed package.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from bitfront.core.errors import EngineError, UsageError

_MOST_SAID = 1000  # characters
_STANDARD = Path(sysconfig.get_path("stdlib"))
_ROOMS = tuple(Path(__file__).resolve().parent.parent / room for room in ("core", "lowering", "backends", "search"))


def load_attribute(name: str, option: str, failure: type[EngineError] = UsageError) -> Any:
    """The object at ``module:attribute``.

    Args:
        name: Where it is; the attribute may have dots.
        option: What was given, for messages.
        failure: The error to raise.

    Raises:
        EngineError: ``failure``, if there is no such module or attribute, or importing it fails.
    """
    module_name, separator, attribute = name.partition(":")
    if "/" in module_name or "\\" in module_name or module_name.startswith("."):
        raise failure(
            f"{option}: expected a module's name, got the path '{module_name}'",
            "write package.module:attribute, and run 'search' in the folder that holds it",
        )
    if not (module_name and separator and attribute):
        raise failure(f"{option}: expected module:attribute, got '{name}'", "for example my_module:workload")
    module = _module(module_name, option, failure)
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            public = [key for key in vars(module) if not key.startswith("_")]
            raise failure(
                f"{option}: module '{module_name}' has no attribute '{attribute}'",
                f"it has {', '.join(public[:12])}" if public else f"'{getattr(module, '__file__', '')}' is empty",
            ) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise failure(failed(f"{option}: '{name}'", error), "run it alone in Python to see why") from error
    return found


def failed(what: str, error: BaseException) -> str:
    """Describe an error raised by a person's own code, with the line it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    # A person's own line rather than the library's that it called.
    own = [frame for frame in frames if not _is_library(frame.filename)] or frames[-1:]
    place = f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - a person's own exception may fail at this, too
        said = "(it cannot be shown)"
    return f"{what} failed{place}: {type(error).__name__}: {said[:_MOST_SAID]}"


def _is_library(file: str) -> bool:
    path = Path(file)
    if not path.is_absolute():
        return True  # "<frozen importlib._bootstrap>" and its like
    return "site-packages" in path.parts or any(path.is_relative_to(folder) for folder in (_STANDARD, *_ROOMS))


def _module(name: str, option: str, failure: type[EngineError]) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            hint = "check the spelling, and run 'search' in the folder that holds it"
            raise failure(f"{option}: there is no module '{missing}'", hint) from error
        hint = f"install '{missing}' into this Python environment"
        raise failure(f"{option}: module '{name}' needs '{missing}', which is not installed", hint) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an exit from Python among them
        raise failure(
            failed(f"{option}: importing module '{name}'", error), "run it alone in Python to see why"
        ) from error
