"""Options shared by several commands: their spelling, parsing and conversion to values of ``core``."""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NoReturn

from bitfront.core import (
    METRICS,
    BackendUnavailableError,
    CalibrationSettings,
    Precision,
    RangeMethod,
    UsageError,
)
from bitfront.search.arguments.values import (
    batch_axis,
    check_words,
    data,
    key_value,
    number,
    path,
    positive,
    precisions,
    threads,
    whole,
)
from bitfront.search.console.terminal import write_message
from bitfront.search.inputs.networks.tasks import TASKS
from bitfront.search.inputs.source import Source

if TYPE_CHECKING:
    from bitfront.backends.base import Backend

DEFAULT_CALIBRATION = CalibrationSettings()
_NARROWEST, _WIDEST = 60, 110  # columns of a help text


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are this project's, with a hint."""

    def __init__(self, prog: str, usage: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting.

        Raises:
            UsageError: Always.
        """
        hint = f"see '{self.prog} --help'"
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            close = difflib.get_close_matches(unknown[1].partition("=")[0], known, n=1)
            hint = f"did you mean {close[0]}? {hint}" if close else hint
        message = re.sub(r"^argument (?:\S+?/)*(\S+?): ", r"\1: ", message)
        if message.endswith("expected one argument"):
            hint = f"give a value; one that begins with a dash goes as OPTION=VALUE. {hint}"
        raise UsageError(message, hint)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size((100, 24)).columns
        super().__init__(prog, max_help_position=30, width=max(_NARROWEST, min(columns, _WIDEST) - 2))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Paragraphs filled to the width; indented lines are examples, continued as a shell does."""
        found: list[str] = []
        for kind, lines in groupby(text.splitlines(), key=lambda line: (line[:1] == " ", not line.strip())):
            if kind == (False, False):
                found += textwrap.wrap(" ".join(lines), width, initial_indent=indent, subsequent_indent=indent)
            else:
                found += [part for line in lines for part in _continued(indent + line, width)]
        return "\n".join(found)


def _continued(line: str, width: int) -> list[str]:
    """An indented line in several, where it is too long: a command before its options, other words below each other."""
    text = line.lstrip()
    start = line[: len(line) - len(text)]
    head, *notes = re.split(r" {3,}", text, maxsplit=1)
    if len(line) <= width:
        return [line]
    if not head.startswith("search "):
        column = len(line) - len(notes[0]) if notes else len(start)
        words = textwrap.wrap(
            notes[0] if notes else text, width, initial_indent=" " * column, subsequent_indent=" " * column
        )
        return [line[:column] + words[0][column:], *words[1:]]
    found = [f"{start}# {note}" for note in notes]
    shown, *options = re.split(" (?=--)", start + head)
    for option in options:
        if len(f"{shown} {option} \\") > width:
            found.append(f"{shown} \\")
            shown = f"{start}    {option}"
        else:
            shown += f" {option}"
    return [*found, shown]


def add_source(parser: argparse.ArgumentParser, *, evaluation: bool) -> None:
    """Add the options for model and data; labelled data only where the command scores accuracy."""
    group = parser.add_argument_group(
        "Model and data",
        "an ONNX file with its data, or a Python workload. DATA is an .npz file with arrays named like the network's "
        "inputs, a folder of images, a text file, an .npy file, a folder of .npz files, or a data set on disk: "
        "docs/data.md",
    )
    group.add_argument("--model", type=path, metavar="ONNX", help="trained network; fixed or dynamic batch")
    group.add_argument(
        "--calib",
        type=data,
        metavar="DATA",
        help="calibration inputs, no labels needed; or random, which is no more than a guess",
    )
    if evaluation:
        group.add_argument(
            "--eval",
            type=data,
            metavar="DATA",
            help="evaluation inputs, and their 'labels' if there are any (default: half of --calib, kept apart)",
        )
        group.add_argument(
            "--metric",
            metavar="NAME",
            help=f"{', '.join(METRICS)} (docs/metrics.md), or your module:function(outputs, labels) "
            "(default: top1; without labels agreement with the network as given)",
        )
    add_data_options(group)
    group.add_argument(
        "--workload",
        metavar="MODULE:ATTR",
        help="a workload object, or a function make(data); or hf:FOLDER, a folder of a Hugging Face model, which takes "
        "data as --model does (default: a demo on handwritten digits)",
    )
    add_task(group)
    group.add_argument("--data", type=path, metavar="FOLDER", help="folder passed to the workload's function")
    add_batch_axis(group)
    _add_list(
        group,
        "--state",
        key_value,
        "OUT=IN",
        "outputs that feed inputs of the next step; samples are sequences, time their second axis (default: none)",
    )


def add_task(group: argparse._ArgumentGroup) -> None:
    """Add the option that says what a Hugging Face model is for."""
    group.add_argument(
        "--task", metavar="TASK", help=f"what the network of hf:FOLDER is for: {', '.join(TASKS)} (default: none)"
    )


def _add_list(
    group: argparse._ArgumentGroup, flag: str, kind: Callable[[str], object], metavar: str, text: str
) -> None:
    """Add an option that takes several words and may be repeated."""
    group.add_argument(flag, type=kind, nargs="+", action="extend", default=[], metavar=metavar, help=text)


def add_data_options(group: argparse._ArgumentGroup) -> None:
    """Add the option for how data become inputs."""
    _add_list(
        group,
        "--data-options",
        key_value,
        "KEY=VALUE",
        "how images and text become inputs: size=224 scale=1/255 mean=... (default: what lies beside the model)",
    )


def add_batch_axis(group: argparse._ArgumentGroup) -> None:
    """Add the option that says which axis of an input or output counts the samples."""
    _add_list(
        group,
        "--batch-axis",
        batch_axis,
        "NAME=AXIS",
        "axis of an input or output that counts samples, from 0, or none (default: told from shapes and runs)",
    )


def source_of(args: argparse.Namespace) -> Source:
    """The source of model and data that the options name.

    Raises:
        EngineError: If the options do not go together.
    """
    return Source(
        model=args.model,
        calibration=args.calib,
        evaluation=getattr(args, "eval", None),
        data_options=tuple(args.data_options),
        metric=getattr(args, "metric", None),
        workload=args.workload,
        task=args.task,
        data=args.data,
        batch_axes=tuple(args.batch_axis),
        state=tuple(args.state),
    )


def add_precisions(group: argparse._ArgumentGroup) -> None:
    """Add the option for the precisions that layers may take."""
    group.add_argument(
        "--precisions",
        type=precisions,
        default=tuple(Precision),
        metavar="LIST",
        help=f"what layers may become; fp32 always may (default: {','.join(Precision)})",
    )


def add_calibration(group: argparse._ArgumentGroup) -> None:
    """Add the options for activation calibration."""
    group.add_argument(
        "--calibration",
        choices=[method.value for method in RangeMethod],
        default=DEFAULT_CALIBRATION.method.value,
        help="how activation ranges are found: %(choices)s (default: %(default)s)",
        metavar="METHOD",
    )
    group.add_argument(
        "--percentile",
        type=number,
        metavar="PERCENT",
        help=f"values kept inside a range, with --calibration percentile (default: {DEFAULT_CALIBRATION.percentile:g})",
    )
    group.add_argument(
        "--calib-samples",
        type=whole,
        default=DEFAULT_CALIBRATION.samples,
        metavar="N",
        help="calibration samples used, from the first on (default: %(default)s)",
    )


def calibration_of(args: argparse.Namespace) -> CalibrationSettings:
    """The calibration settings that the options give.

    Raises:
        UsageError: If the options do not go together.
    """
    method = RangeMethod(args.calibration)
    if args.percentile is not None and method is not RangeMethod.PERCENTILE:
        raise UsageError(
            f"--percentile has no effect with --calibration {method.value}", "add --calibration percentile"
        )
    return CalibrationSettings(
        method=method,
        percentile=DEFAULT_CALIBRATION.percentile if args.percentile is None else args.percentile,
        samples=args.calib_samples,
    )


def add_runtime(group: argparse._ArgumentGroup, *, batch: bool) -> None:
    """Add the options for the runtime; with ``batch``, several runtimes and the batch size too."""
    several = ", or more: ort-cpu,openvino" if batch else ""
    group.add_argument(
        "--backend", default="ort-cpu", metavar="NAME", help=f"runtime to measure on{several} (default: %(default)s)"
    )
    group.add_argument(
        "--threads", type=threads, default=1, metavar="N", help="threads of the runtime (default: %(default)s)"
    )
    if batch:
        group.add_argument(
            "--batch-size",
            type=positive,
            metavar="N",
            help="samples per timed inference (default: the model's fixed batch, the workload's own, else 1)",
        )


def add_sensitivity_samples(group: argparse._ArgumentGroup) -> None:
    """Add the option for the number of samples per sensitivity score."""
    group.add_argument(
        "--sensitivity-samples",
        type=positive,
        default=128,
        metavar="N",
        help="calibration samples each sensitivity score is taken on (default: %(default)s)",
    )


def backend_of(args: argparse.Namespace) -> Backend:
    """The runtime of a command that takes one.

    Raises:
        UsageError: If there is none of that name, or several are named.
        BackendUnavailableError: If it cannot start here.
    """
    if "," in args.backend:
        raise UsageError(
            f"--backend: this command takes one backend, got '{args.backend}'", "repeat the command for each of them"
        )
    return _backend(args.backend)


def backends_of(args: argparse.Namespace) -> dict[str, Backend]:
    """Name → runtime of each backend asked for; where there are several, each has been started once.

    Raises:
        UsageError: If there is none of a name, or a name comes twice.
        BackendUnavailableError: If one of several cannot start here.
    """
    names = [name.strip() for name in args.backend.split(",")]
    for name in names:
        if not name:
            raise UsageError(
                f"--backend: expected names with a comma between, got '{args.backend}'",
                "as in --backend ort-cpu,openvino",
            )
        if names.count(name) > 1:
            raise UsageError(f"--backend: '{name}' is named twice in '{args.backend}'", "name each backend once")
    found = {name: _backend(name) for name in names}
    for name, backend in found.items() if len(names) > 1 else ():
        try:
            backend.fingerprint()
        except BackendUnavailableError as error:
            raise BackendUnavailableError(f"--backend: '{name}': {error.message}", error.hint) from error
    return found


def _backend(name: str) -> Backend:
    from bitfront.backends.registry import get_backend

    try:
        return get_backend(name)
    except UsageError as error:
        raise UsageError(f"--backend: {error.message}", error.hint) from error


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; refuses words left empty by a missing shell variable, warns of more threads than cores.

    Raises:
        UsageError: If an option is unknown, malformed or empty.
    """
    check_words(argv)
    args = parser.parse_args(list(argv))
    if getattr(args, "threads", 1) > 1 and not getattr(args, "quiet", False):
        _warn_of_cores(args.threads)
    return args


def _warn_of_cores(threads: int) -> None:
    from bitfront.backends.affinity import available_cores

    cores = available_cores()
    if threads > cores:
        said = f"--threads {threads}: this process may use {cores} core{'s' * (cores != 1)}"
        write_message(sys.stderr, "warning", f"{said}; threads wait for one another")
