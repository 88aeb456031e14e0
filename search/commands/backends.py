"""``search backends``: the runtimes, what each really does on this machine, and why others cannot start."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfront.core import BackendError, Precision
from bitfront.search.arguments import arguments
from bitfront.search.console.tables import write_table
from bitfront.search.console.terminal import write_prose

if TYPE_CHECKING:
    from bitfront.backends.base import Backend, Capabilities, DeviceFingerprint

USAGE = "search backends [NAME ...]"
DESCRIPTION = """\
List the runtimes that --backend can name: version, device, and what each really does here, found by compiling and
running small graphs. A runtime that cannot start says exactly why, and what to install.

  search backends
  search backends ort-cpu my_package.my_module:MyBackend"""
COLUMNS = ("backend", "runtime", "device", "does here")
_NOWHERE = "not available"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """State of one backend on this machine.

    Attributes:
        name: As named on the command line.
        device: Machine and runtime; None where it cannot start.
        capabilities: What was probed; None where it cannot start.
        unprofitable: Precision → why it is not offered here.
        reason: Why it cannot start; empty where it can.
        hint: What to do about it.
    """

    name: str
    device: DeviceFingerprint | None
    capabilities: Capabilities | None
    unprofitable: dict[Precision, str]
    reason: str = ""
    hint: str = ""


def build_parser() -> arguments.Parser:
    """The command's options."""
    parser = arguments.Parser("search backends", USAGE, DESCRIPTION)
    parser.add_argument("names", nargs="*", metavar="NAME", help="runtimes to look at (default: all)")
    return parser


def run(argv: Sequence[str]) -> int:
    """Print the table, then what is missing.

    Raises:
        UsageError: If a name is unknown.
    """
    from bitfront.backends.registry import backend_names, get_backend

    args = arguments.parse(build_parser(), argv)
    names = tuple(dict.fromkeys(args.names)) or backend_names()
    backends = {name: get_backend(name) for name in names}
    found = [look_at(name, backend) for name, backend in backends.items()]
    write_table(sys.stdout, COLUMNS, [row(entry) for entry in found], wrapping=3)
    for entry in found:
        if lines := remarks(entry):
            write_prose(sys.stdout, "", f"{entry.name}:", *(f"  {line}" for line in lines))
    return 0


def look_at(name: str, backend: Backend) -> Found:
    """Start and probe a runtime; where that fails, its error is the reason."""
    try:
        return Found(
            name=name,
            device=backend.fingerprint(),
            capabilities=backend.capabilities(),
            unprofitable=dict(backend.unprofitable_precisions()),
        )
    except BackendError as error:
        return Found(
            name=name, device=None, capabilities=None, unprofitable={}, reason=error.message, hint=error.hint or ""
        )


def row(found: Found) -> tuple[str, ...]:
    """The table row of a backend, one cell per column of ``COLUMNS``."""
    if found.device is None or found.capabilities is None:
        return (found.name, _NOWHERE, "", "")
    does = [name for name, supported in found.capabilities.supported.items() if supported]
    return (found.name, found.device.runtime, found.device.device, " ".join(does) or "nothing that was probed")


def remarks(found: Found) -> list[str]:
    """Lines about what a runtime does not do here, and why."""
    if found.reason:
        lines = [f"{_NOWHERE}: {line}" if not index else line for index, line in enumerate(found.reason.splitlines())]
        return [*lines, *([found.hint] if found.hint else [])]
    assert found.capabilities is not None
    missing = [name for name, supported in found.capabilities.supported.items() if not supported]
    noted = [name for name in found.capabilities.notes if name not in found.capabilities.supported]
    return [
        *(f"{name}: {found.capabilities.notes.get(name, 'not supported')}" for name in (*missing, *noted)),
        *(f"{precision.value} is not offered: {reason}" for precision, reason in found.unprofitable.items()),
    ]
