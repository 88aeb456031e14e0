"""Options of the limits on latency, size and accuracy, each for all backends of a run or for one by name."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence

from bitfront.core import BYTES_PER_MB, Constraints, Prefer, Preference, UsageError
from bitfront.core.constraints import ESTIMATE
from bitfront.core.preference import SIGNIFICANCE
from bitfront.search.arguments.values import Limit, limit, number

BUDGET = (
    "limits the result must meet, any combination, each for every backend or by name: ort-cpu=5,openvino=4;\n"
    "of what is within them the point is recommended that --prefer names, of equals the faster, then the smaller"
)


def add_budget(parser: argparse.ArgumentParser) -> None:
    """Add the options that limit latency, size and accuracy."""
    group = parser.add_argument_group("Constraints", BUDGET)
    group.add_argument(
        "--budget-ms",
        type=limit,
        metavar="MS",
        help="latency of one inference on an undisturbed machine, in milliseconds (default: none)",
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
    group.add_argument(
        "--max-error",
        type=limit,
        metavar="VALUE",
        help="highest value of a metric that is better when lower, in place of --min-acc (default: none)",
    )
    group.add_argument(
        "--max-rise",
        type=limit,
        metavar="VALUE",
        help="its largest increase over the given network's, absolute, in place of --max-drop (default: none)",
    )

    group.add_argument(
        "--confidence",
        type=number,
        default=ESTIMATE,
        metavar="PROBABILITY",
        help="how surely limits of accuracy are to hold: 0.5 is the estimate itself, 0.95 nearly sure (default: "
        "%(default)s)",
    )
    group.add_argument(
        "--prefer",
        choices=[prefer.value for prefer in Prefer],
        help="what is wanted most within the limits: accuracy as high as can be told apart, or the lowest latency or "
        "size that keeps the limits of accuracy (default: latency where accuracy alone is limited, else accuracy)",
    )
    group.add_argument(
        "--significance",
        type=number,
        default=SIGNIFICANCE,
        metavar="LEVEL",
        help="level of the paired test by which a point is less accurate than the best; below it they are equal, and "
        "the faster is recommended; 1 takes every difference as real (default: %(default)s)",
    )


def preference_of(args: argparse.Namespace) -> Preference:
    """Return the preference among points within the limits.

    Raises:
        UsageError: If the level is no probability.
    """
    return Preference(prefer=Prefer(args.prefer) if args.prefer else None, significance=args.significance)


def budgets_of(args: argparse.Namespace, backends: Sequence[str]) -> dict[str, Constraints]:
    """The constraints of each backend; a limit given by name holds for the backends it names.

    Raises:
        UsageError: If a limit makes no sense, or names a backend that is not in the run.
    """
    limits: dict[str, Limit | None] = {
        "--budget-ms": args.budget_ms,
        "--budget-mb": args.budget_mb,
        "--min-acc": args.min_acc,
        "--max-drop": args.max_drop,
        "--max-error": args.max_error,
        "--max-rise": args.max_rise,
    }
    for option, given in limits.items():
        for name in given if isinstance(given, Mapping) else ():
            if name not in backends:
                close = difflib.get_close_matches(name, backends, n=1)
                raise UsageError(
                    f"{option}: backend '{name}' is not in this run; its backends: {', '.join(backends)}",
                    f"did you mean '{close[0]}'?" if close else "name it in --backend too",
                )
    return {backend: _budget(limits, backend, args.confidence) for backend in backends}


def _budget(limits: Mapping[str, Limit | None], backend: str, confidence: float) -> Constraints:
    values = {o: given.get(backend) if isinstance(given, Mapping) else given for o, given in limits.items()}
    megabytes = values["--budget-mb"]
    try:
        return Constraints(
            latency_ms=values["--budget-ms"],
            size_bytes=None if megabytes is None else megabytes * BYTES_PER_MB,
            min_accuracy=values["--min-acc"],
            max_drop=values["--max-drop"],
            max_error=values["--max-error"],
            max_rise=values["--max-rise"],
            confidence=confidence,
        )
    except UsageError as error:
        named = any(error.message.startswith(o) and isinstance(given, Mapping) for o, given in limits.items())
        raise UsageError(f"{error.message} for {backend}" if named else error.message, error.hint) from None
