"""The ``search`` command: finds the command asked for, runs it, and turns errors into words and exit codes.

Exit codes: 0 when a point meets every budget (or the command did its work), 3 when none does, 2 for bad usage or
input, 128 and the signal's number when told to stop: 130 by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.

Nothing but the standard library is imported when this is loaded, so that an interruption finds its handler in place
while everything else is.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import cast

from bitfront.search.console.interruption import EXIT_INTERRUPTED, handle_signals

EXIT_OK = 0
EXIT_USAGE = 2

# Each is a module of search.commands with ``run(argv) -> exit code``.
COMMANDS = ("sensitivity", "apply", "measure", "report", "inspect", "backends")
DISTRIBUTION = "bitfront"

Run = Callable[[Sequence[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    # Before onnxruntime can be imported: a tool that runs on private models sends nothing anywhere.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    arguments = list(sys.argv[1:] if argv is None else argv)
    with handle_signals() as interruptions:
        try:
            code = _answer(arguments)
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
            with contextlib.suppress(KeyboardInterrupt, OSError, ValueError, AttributeError):  # nobody may read it
                sys.stderr.write("interrupted\n")
        return interruptions.exit_code(code)


def _answer(arguments: list[str]) -> int:
    """Run the command asked for; errors of ours are printed in words, and output is flushed when it returns."""
    from bitfront.core.errors import EngineError
    from bitfront.search.console.secrets import masked_text
    from bitfront.search.console.terminal import standard_streams, write_message

    with standard_streams():
        try:
            code = _dispatch(arguments)
            sys.stdout.flush()
        except EngineError as error:
            write_message(sys.stderr, "error", masked_text(error.message, arguments))
            if error.hint:
                write_message(sys.stderr, "hint", masked_text(error.hint, arguments))
            return EXIT_USAGE
        except MemoryError:
            write_message(sys.stderr, "error", "out of memory")
            write_message(sys.stderr, "hint", "give fewer samples or a smaller batch; what was finished is kept")
            return EXIT_USAGE
        except SystemExit:  # ``--help``
            sys.stdout.flush()
            raise
        return code


def _dispatch(arguments: list[str]) -> int:
    if "--version" in arguments and arguments[0] not in COMMANDS:
        sys.stdout.write(f"search ({DISTRIBUTION}) {_version()}\n")
        return EXIT_OK
    if arguments and arguments[0] in COMMANDS:
        return _command(arguments[0])(arguments[1:])
    if arguments and not arguments[0].startswith("-"):
        from bitfront.core.errors import UsageError

        close = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        raise UsageError(
            f"unknown command '{arguments[0]}'",
            f"did you mean '{close[0]}'?"
            if close
            else f"commands: {', '.join(COMMANDS)}; without a command, options alone start a search",
        )
    return _command("main_job")(arguments)


def _command(module: str) -> Run:
    return cast(Run, import_module(f"bitfront.search.commands.{module}").run)


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "not installed"
