"""Options that several commands share: how each is spelt, parsed and turned into a value of the vocabulary."""

from __future__ import annotations

import argparse
import difflib
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from precision import (
    BYTES_PER_MB,
    BackendUnavailableError,
    Budget,
    CalibrationSettings,
    Precision,
    RangeMethod,
    UsageError,
)
from search.inputs.source import Source

if TYPE_CHECKING:
    from backends.base import Backend

DEFAULT_CALIBRATION = CalibrationSettings()
Limit = float | Mapping[str, float]
"""A limit for all backends, or backend → its own."""
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


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
        raise UsageError(re.sub(r"^argument (\S+?)(/\S+)*: ", r"\1: ", message), hint)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size((100, 24)).columns
        super().__init__(prog, max_help_position=30, width=max(60, min(columns, 110) - 2))


def number(text: str) -> float:
    """A float, not NaN.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise argparse.ArgumentTypeError(f"expected a number, got '{text}'")
    return value


def limit(text: str) -> Limit:
    """A limit: ``5`` for all backends, or ``ort-cpu=5,openvino=4``.

    Raises:
        argparse.ArgumentTypeError: If it is neither, or names a backend twice.
    """
    if "=" not in text and "," not in text:
        return number(text)
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, separator, value = (word.strip() for word in part.partition("="))
        if not (name and separator and value):
            raise argparse.ArgumentTypeError(
                f"expected one number for all backends, or BACKEND=NUMBER for each, got '{text}'"
            )
        if name in limits:
            raise argparse.ArgumentTypeError(f"backend '{name}' has two limits in '{text}'")
        limits[name] = number(value)
    return limits


def whole(text: str) -> int:
    """A whole number.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got '{text}'") from None


def positive(text: str) -> int:
    """A whole number above zero.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {value}")
    return value


def duration_s(text: str) -> float:
    """Seconds from ``90``, ``90s``, ``5m`` or ``1h``.

    Raises:
        argparse.ArgumentTypeError: If it is no duration.
    """
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)(s|m|min|h)?", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a duration as in 90, 90s, 5m or 1h, got '{text}'")
    return float(found[1]) * _UNITS_S[found[2] or ""]


def precisions(text: str) -> tuple[Precision, ...]:
    """Precisions from ``fp32,int8``; from high to low, each once.

    Raises:
        argparse.ArgumentTypeError: If one is unknown.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [precision.value for precision in Precision]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"unknown precision '{name}', expected some of {','.join(known)}")
    if not names:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(known)}, got nothing")
    return tuple(precision for precision in Precision if precision.value in names)


BUDGET = (
    "limits the result must meet, any combination; recommended is the most accurate point within them, or the\n"
    "fastest where accuracy alone is limited; each for every backend, or by name: ort-cpu=5,openvino=4"
)


def add_budget(parser: argparse.ArgumentParser) -> None:
    """The limits."""
    group = parser.add_argument_group("Budget", BUDGET)
    group.add_argument(
        "--budget-ms",
        type=limit,
        metavar="MS",
        help="median latency of one inference, in milliseconds (default: none)",
    )
    group.add_argument(
        "--budget-mb", type=limit, metavar="MB", help="size of the model file, in MB of 10^6 bytes (default: none)"
    )
    group.add_argument(
        "--min-acc", type=limit, metavar="FRACTION", help="lowest accuracy; 0.75 is 75 %% (default: none)"
    )
    group.add_argument(
        "--max-drop",
        type=limit,
        metavar="FRACTION",
        help="largest loss of accuracy against the given network, absolute; 0.01 is one point (default: none)",
    )


def budgets_of(args: argparse.Namespace, backends: Sequence[str]) -> dict[str, Budget]:
    """The limits given, backend by backend; one that a limit does not name does not have it.

    Raises:
        UsageError: If a limit makes no sense, or names a backend that is not in the run.
    """
    limits: dict[str, Limit | None] = {
        "--budget-ms": args.budget_ms,
        "--budget-mb": args.budget_mb,
        "--min-acc": args.min_acc,
        "--max-drop": args.max_drop,
    }
    for option, given in limits.items():
        for name in given if isinstance(given, Mapping) else ():
            if name not in backends:
                close = difflib.get_close_matches(name, backends, n=1)
                raise UsageError(
                    f"{option}: backend '{name}' is not in this run; its backends: {', '.join(backends)}",
                    f"did you mean '{close[0]}'?" if close else "name it in --backend too",
                )
    return {backend: _budget(limits, backend) for backend in backends}


def _budget(limits: Mapping[str, Limit | None], backend: str) -> Budget:
    values = {o: given.get(backend) if isinstance(given, Mapping) else given for o, given in limits.items()}
    megabytes = values["--budget-mb"]
    try:
        return Budget(
            latency_ms=values["--budget-ms"],
            size_bytes=None if megabytes is None else megabytes * BYTES_PER_MB,
            min_accuracy=values["--min-acc"],
            max_drop=values["--max-drop"],
        )
    except UsageError as error:
        named = any(error.message.startswith(o) and isinstance(given, Mapping) for o, given in limits.items())
        raise UsageError(f"{error.message} for {backend}" if named else error.message, error.hint) from None


def add_source(parser: argparse.ArgumentParser, *, evaluation: bool) -> None:
    """Model and data; labelled data only where the command scores accuracy."""
    group = parser.add_argument_group(
        "Model and data", "an ONNX file with .npz arrays named like its inputs, or a Python workload"
    )
    group.add_argument("--model", type=Path, metavar="ONNX", help="trained network; fixed or dynamic batch")
    group.add_argument("--calib", type=Path, metavar="NPZ", help="calibration inputs, no labels needed")
    if evaluation:
        group.add_argument("--eval", type=Path, metavar="NPZ", help="evaluation inputs, and their 'labels'")
        group.add_argument(
            "--metric", metavar="NAME", help="top1, or your module:function(outputs, labels) (default: top1)"
        )
    group.add_argument(
        "--workload",
        metavar="MODULE:ATTR",
        help="a workload object, or a function make(data) (default: a demo on handwritten digits)",
    )
    group.add_argument("--data", type=Path, metavar="FOLDER", help="folder passed to the workload's function")


def source_of(args: argparse.Namespace) -> Source:
    """Where model and data are.

    Raises:
        EngineError: If the options do not go together.
    """
    return Source(
        model=args.model,
        calibration=args.calib,
        evaluation=getattr(args, "eval", None),
        metric=getattr(args, "metric", None),
        workload=args.workload,
        data=args.data,
    )


def add_precisions(group: argparse._ArgumentGroup) -> None:
    """What layers may become."""
    group.add_argument(
        "--precisions",
        type=precisions,
        default=tuple(Precision),
        metavar="LIST",
        help=f"what layers may become; fp32 always may (default: {','.join(Precision)})",
    )


def add_calibration(group: argparse._ArgumentGroup) -> None:
    """How activation ranges are found."""
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
    """How activation ranges are found.

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
    """The runtime and how it is driven; a timed batch goes with a search, which takes several runtimes."""
    several = ", or several: ort-cpu,openvino" if batch else ""
    group.add_argument(
        "--backend", default="ort-cpu", metavar="NAME", help=f"runtime to measure on{several} (default: %(default)s)"
    )
    group.add_argument(
        "--threads", type=positive, default=1, metavar="N", help="threads of the runtime (default: %(default)s)"
    )
    if batch:
        group.add_argument(
            "--batch-size",
            type=positive,
            metavar="N",
            help="samples per timed inference (default: the model's fixed batch, the workload's own, else 1)",
        )


def add_sensitivity_samples(group: argparse._ArgumentGroup) -> None:
    """How closely sensitivities are scored."""
    group.add_argument(
        "--sensitivity-samples",
        type=whole,
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
    from backends.registry import get_backend

    if "," in args.backend:
        raise UsageError(
            f"--backend: this command takes one backend, got '{args.backend}'", "repeat the command for each of them"
        )
    return get_backend(args.backend)


def backends_of(args: argparse.Namespace) -> dict[str, Backend]:
    """Name → runtime of each backend asked for; of several, each is known to be there.

    Raises:
        UsageError: If there is none of a name, or a name comes twice.
        BackendUnavailableError: If one of several cannot start here.
    """
    from backends.registry import get_backend

    names = [name.strip() for name in args.backend.split(",")]
    for name in names:
        if not name:
            raise UsageError(f"--backend: expected names with a comma between, got '{args.backend}'")
        if names.count(name) > 1:
            raise UsageError(f"--backend: '{name}' is named twice in '{args.backend}'", "name each backend once")
    found = {name: get_backend(name) for name in names}
    for name, backend in found.items() if len(names) > 1 else ():
        try:
            backend.fingerprint()
        except BackendUnavailableError as error:
            raise BackendUnavailableError(f"--backend: '{name}': {error.message}", error.hint) from error
    return found


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse, refusing empty values that a shell variable gone missing leaves behind.

    Raises:
        UsageError: If an option is unknown, malformed or empty.
    """
    for option, value in pairwise(argv):
        if option.startswith("--") and not value.strip():
            raise UsageError(f"{option}: got an empty value")
    return parser.parse_args(list(argv))
