"""The options of ``--passes``: which passes take part in a search, and how."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from bitfront.core import UsageError
from bitfront.search.arguments import values
from bitfront.search.inputs.networks.tasks import hf_folder
from bitfront.search.passes.base import Pass
from bitfront.search.passes.options import DEFAULT_TRAINING_LIMIT_S, PassOptions
from bitfront.search.passes.registry import get_pass, selectable

_MINUTE_S = 60.0

P = TypeVar("P", bound=Pass)


def passes(text: str) -> tuple[Pass, ...]:
    """Passes with default options from ``prune,distill,qat``, each once.

    Raises:
        UsageError: If a pass is unknown.
    """
    given = [name.strip() for name in text.split(",") if name.strip()]
    if not given:
        known = ",".join(selectable())
        raise UsageError(f"--passes: expected some of {known}, got nothing", "as in --passes prune,distill")
    return tuple({one.name: one for one in map(get_pass, given)}.values())


def add_passes(parser: argparse.ArgumentParser) -> None:
    """Add the options for passes: which, how much they may train, and each pass's own."""
    known = selectable()
    group = parser.add_argument_group(
        "Passes",
        "train smaller versions of the network within the search; needs a workload with a PyTorch module and\n"
        "training inputs, and one backend (docs/passes.md)",
    )
    group.add_argument(
        "--passes",
        type=passes,
        metavar="LIST",
        help=f"some of {','.join(known)}: {', '.join(kind.summary for kind in known.values())}; MODULE:ATTR for one "
        "of your own (default: none)",
    )
    group.add_argument(
        "--train-budget",
        type=values.number,
        metavar="MIN",
        help="minutes of training in the whole run "
        f"(default: what usually pays, {DEFAULT_TRAINING_LIMIT_S / _MINUTE_S:g} at most)",
    )
    for kind in known.values():
        for argument in kind.arguments:
            # Absent where it was not given: None is a value of some options.
            group.add_argument(
                argument.flag,
                type=argument.parse,
                choices=argument.choices,
                metavar=argument.metavar,
                default=argparse.SUPPRESS,
                help=argument.help,
            )


def passes_of(args: argparse.Namespace) -> PassOptions | None:
    """The passes asked for; None without any.

    Raises:
        UsageError: If options do not go together.
    """
    asked: tuple[Pass, ...] = args.passes or ()
    if not asked and args.train_budget is not None:
        raise _no_effect("--train-budget", "--passes")
    for kind in selectable().values():
        for argument in kind.arguments:
            if hasattr(args, argument.field) and not any(isinstance(one, kind) for one in asked):
                raise _no_effect(argument.flag, f"--passes {kind.name}")
    if not asked:
        return None
    if hf_folder(args.workload) is not None:
        raise UsageError(
            f"--passes needs training inputs, and --workload {args.workload} brings none",
            "bring the model and training inputs as a workload, --workload module:attribute (docs/torch.md)",
        )
    if args.model is not None:
        raise UsageError(
            "--passes needs the torch module: an ONNX file cannot be trained",
            "give a workload with the module and training inputs, --workload module:attribute (docs/passes.md)",
        )
    minutes = args.train_budget
    return PassOptions(
        passes=tuple(_with_options(one, args) for one in asked),
        train_budget_s=None if minutes is None else minutes * _MINUTE_S,
    )


def _with_options(one: P, args: argparse.Namespace) -> P:
    if one.name not in selectable():
        return one
    given: dict[str, Any] = {a.field: getattr(args, a.field) for a in one.arguments if hasattr(args, a.field)}
    return replace(one, **given)  # type: ignore[type-var]


def _no_effect(option: str, needed: str) -> UsageError:
    return UsageError(f"{option} has no effect without {needed}", f"add {needed}, or leave {option} out")


def check_backends(options: PassOptions | None, backends: Sequence[str]) -> None:
    """Passes go with one backend: which channels are worth removing is the runtime's own matter.

    Raises:
        UsageError: If there are several.
    """
    if options is not None and len(backends) > 1:
        raise UsageError(
            f"--passes: one backend at a time, got {', '.join(backends)}", "repeat the search for each of them"
        )
