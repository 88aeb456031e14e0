"""The options of ``--passes``: training the network smaller as part of the search."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Literal

from bitfront.core import UsageError
from bitfront.search.commands import values
from bitfront.search.options import IMPORTANCES, MOST_TRAINING_S, PassOptions, SparsePattern

# As typed → the field of PassOptions.
PASSES = {"prune": "prune", "distill": "distil", "qat": "qat", "sparse": "sparse"}
_SPELLINGS = {**PASSES, "distil": "distil"}
_MINUTE_S = 60.0
_DEFAULTS = PassOptions(prune=True)


def names(text: str) -> tuple[str, ...]:
    """Fields of ``PassOptions`` from ``prune,distill,qat``.

    Raises:
        UsageError: If a pass is unknown.
    """
    given = [name.strip() for name in text.split(",") if name.strip()]
    known = ",".join(PASSES)
    if not given:
        raise UsageError(f"--passes: expected some of {known}, got nothing", "as in --passes prune,distill")
    for name in given:
        if name not in _SPELLINGS:
            close = difflib.get_close_matches(name, _SPELLINGS, n=1)
            raise UsageError(
                f"--passes: unknown pass '{name}', expected some of {known}",
                f"did you mean '{close[0]}'?" if close else "see 'search --help'",
            )
    return tuple(dict.fromkeys(_SPELLINGS[name] for name in given))


def levels(text: str) -> tuple[float, ...]:
    """Sparsities from ``0.25,0.5``, ascending, each once.

    Raises:
        argparse.ArgumentTypeError: If one is no number.
    """
    return tuple(sorted({values.number(part.strip()) for part in text.split(",") if part.strip()}))


def multiple(text: str) -> int | Literal["auto"]:
    """A positive whole number, or ``auto``.

    Raises:
        argparse.ArgumentTypeError: If it is neither.
    """
    return "auto" if text.strip() == "auto" else values.positive(text)


def patterns(text: str) -> tuple[SparsePattern, ...]:
    """Patterns of zeros from ``2:4,0.8``, each once.

    Raises:
        UsageError: If one is none.
    """
    return tuple(dict.fromkeys(SparsePattern(part.strip()) for part in text.split(",") if part.strip()))


def add_passes(parser: argparse.ArgumentParser) -> None:
    """Which passes, and how much they may train."""
    group = parser.add_argument_group(
        "Passes",
        "train smaller versions of the network within the search; needs a workload with a PyTorch module and\n"
        "training inputs, and one backend (docs/passes.md)",
    )
    group.add_argument(
        "--passes",
        type=names,
        metavar="LIST",
        help=f"some of {','.join(PASSES)}: remove channels and branches, learn from the given network, train the "
        "quantised model, zeros among the weights (default: none)",
    )
    group.add_argument(
        "--train-budget",
        type=values.number,
        metavar="MIN",
        help="minutes of training in the whole run "
        f"(default: what usually pays, {MOST_TRAINING_S / _MINUTE_S:g} at most)",
    )
    group.add_argument(
        "--sparsities",
        type=levels,
        metavar="LIST",
        help="fractions of a group's channels that prune may remove "
        f"(default: {','.join(f'{level:g}' for level in _DEFAULTS.sparsities)})",
    )
    group.add_argument(
        "--round-to",
        type=multiple,
        metavar="N",
        help="channels that stay are a multiple of it; auto: what the runtime's kernels like (default: auto)",
    )
    group.add_argument(
        "--importance",
        choices=IMPORTANCES,
        metavar="NAME",
        help=f"what prune removes first: %(choices)s (default: {_DEFAULTS.importance})",
    )
    group.add_argument(
        "--sparse-weights",
        type=patterns,
        metavar="LIST",
        help="zeros that sparse puts among the weights, a network for each: N:M, or a fraction of all weights "
        f"(default: {','.join(pattern.text for pattern in _DEFAULTS.sparse_weights)})",
    )


def passes_of(args: argparse.Namespace) -> PassOptions | None:
    """The passes asked for; None without any.

    Raises:
        UsageError: If options do not go together.
    """
    ours = {
        "--train-budget": args.train_budget,
        "--sparsities": args.sparsities,
        "--round-to": args.round_to,
        "--importance": args.importance,
        "--sparse-weights": args.sparse_weights,
    }
    for option, value in ours.items():
        which = {"--train-budget": "", "--sparse-weights": "sparse"}.get(option, "prune")
        needed = f"--passes {which}".rstrip()
        if value is not None and (args.passes is None or (which and which not in args.passes)):
            raise UsageError(f"{option} has no effect without {needed}", f"add {needed}, or leave {option} out")
    if args.passes is None:
        return None
    if args.model is not None:
        raise UsageError(
            "--passes needs the torch module: an ONNX file cannot be trained",
            "give a workload with the module and training inputs, --workload module:attribute (docs/passes.md)",
        )
    minutes = args.train_budget
    return PassOptions(
        **dict.fromkeys(args.passes, True),
        train_budget_s=None if minutes is None else minutes * _MINUTE_S,
        sparsities=_DEFAULTS.sparsities if args.sparsities is None else args.sparsities,
        round_to=None if args.round_to == "auto" else args.round_to,
        importance=args.importance or _DEFAULTS.importance,
        sparse_weights=_DEFAULTS.sparse_weights if args.sparse_weights is None else args.sparse_weights,
    )


def check_backends(passes: PassOptions | None, backends: Sequence[str]) -> None:
    """Passes go with one backend: which channels are worth removing is the runtime's own matter.

    Raises:
        UsageError: If there are several.
    """
    if passes is not None and len(backends) > 1:
        raise UsageError(
            f"--passes: one backend at a time, got {', '.join(backends)}", "repeat the search for each of them"
        )
