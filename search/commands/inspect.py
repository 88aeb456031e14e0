"""``search inspect``: a network's operators with weights, the schemes each may take, and why it may take no others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bitfront.core import FP32, CalibrationSettings, ContentStore, UsageError
from bitfront.core.batching import take_rows
from bitfront.core.ragged import median_sample, rows_like
from bitfront.search.commands import arguments, values
from bitfront.search.console.tables import Narrowing, write_table
from bitfront.search.console.terminal import write_message, write_prose
from bitfront.search.inputs.arrays import shown_shape
from bitfront.search.inputs.data.random_data import RANDOM
from bitfront.search.inputs.source import Source

if TYPE_CHECKING:
    from bitfront.backends.base import Backend
    from bitfront.backends.time_shares import TimeShares
    from bitfront.core import Inputs
    from bitfront.lowering.coverage import WeightHolder
    from bitfront.lowering.layers import Layer, QuantisableLayers
    from bitfront.lowering.lowerer import Lowerer

USAGE = "search inspect MODEL [options]\n       search inspect --workload MODULE:ATTR [options]"
DESCRIPTION = """\
List a network's operators with weights: their share of the weights and, with --profile, of the time; what each may
become on a runtime, and what it may not become and why.

  search inspect net.onnx
  search inspect net.onnx --profile --calib calib.npz"""
COLUMNS = ("layer", "operator", "weight", "parameters", "share", "group", "supported precisions")
TIME_COLUMN = "time"
_LAYER, _GROUP = COLUMNS.index("layer"), COLUMNS.index("group")  # groups of several layers are told below the table
_MOST_NAMES = 12  # of operators that one reason is given for


def build_parser() -> arguments.Parser:
    """The command's options."""
    parser = arguments.Parser("search inspect", USAGE, DESCRIPTION)
    parser.add_argument("network", type=values.path, nargs="?", metavar="MODEL", help="ONNX file")
    group = parser.add_argument_group("Options")
    group.add_argument("--workload", metavar="MODULE:ATTR", help="a workload instead of a file")
    group.add_argument("--data", type=values.path, metavar="FOLDER", help="folder passed to the workload's function")
    arguments.add_runtime(group, batch=False)
    group.add_argument(
        "--profile", action="store_true", help="also run the network and tell each operator's time (default: off)"
    )
    group.add_argument(
        "--calib",
        type=values.data,
        metavar="DATA",
        help="inputs to run it on, one of median size (default: random)",
    )
    arguments.add_data_options(group)
    arguments.add_batch_axis(group)
    return parser


def run(argv: Sequence[str]) -> int:
    """Print the network's operators with weights, its groups, and the shares that stay as they are.

    Raises:
        EngineError: For everything the person can mend.
    """
    args = arguments.parse(build_parser(), argv)
    if args.network is None and args.workload is None:
        raise UsageError("expected a MODEL or --workload", "see 'search inspect --help'")
    if args.calib is not None and not args.profile:
        raise UsageError("--calib has no effect without --profile", "add --profile, or leave it out")
    backend = arguments.backend_of(args)
    drawn = RANDOM if args.profile and args.workload is None else None
    source = Source(
        model=args.network,
        workload=args.workload,
        data=args.data,
        calibration=args.calib or drawn,
        data_options=tuple(args.data_options or ()),
        batch_axes=tuple(args.batch_axis),
    )

    from bitfront.lowering.coverage import weight_holders
    from bitfront.lowering.dialects.registry import get_dialect
    from bitfront.lowering.lowerer import Lowerer
    from bitfront.search.inputs.loading import load_network

    reference, inputs = load_network(source)
    for notice in reference.notices:
        write_message(sys.stderr, "warning", notice)
    dialect = get_dialect(backend.dialect)
    lowerer = Lowerer(reference, dialect, None, CalibrationSettings(), ContentStore(None))
    quantisable = lowerer.quantisable
    holders = weight_holders(reference, quantisable)
    times = operator_times(lowerer, backend, inputs, holders, args.threads) if args.profile else None
    layout = reference.batching
    shapes = ", ".join(
        f"{name} {shown_shape(shape, layout.input_axis(name) if layout.fixed is None else None)}"
        for name, shape in reference.input_shapes.items()
    )
    write_prose(
        sys.stdout,
        f"{reference.source}: inputs {shapes}; {len(quantisable.layers)} layers in {len(quantisable.groups)} groups, "
        f"{sum(holder.weights for holder in holders):,} weights; dialect {dialect.name}",
        "",
    )
    if not quantisable.layers:
        holding = "" if holders or quantisable.left_alone else " None of its operators holds weights."
        text = f"No layer of this network can take another precision; a search ends with FP32.{holding}"
        write_prose(sys.stdout, text, *([""] if holders else []))
    if holders:
        columns = (*COLUMNS[:_GROUP], *([TIME_COLUMN] if times else []), *COLUMNS[_GROUP:])
        narrowings = [Narrowing(column=columns.index("group"))]
        rows = holder_rows(holders, quantisable, times)
        write_table(sys.stdout, columns, rows, wrapping=1, names=(_LAYER,), narrowings=narrowings)
    for title, lines in (
        ("Groups of several layers", group_lines(quantisable)),
        ("Refused", refusal_lines(quantisable.layers)),
        ("Left as they are", left_alone_lines(holders, quantisable, times)),
    ):
        if lines:
            write_prose(sys.stdout, "", f"{title}:", *(f"  {line}" for line in lines))
    if holders:
        write_prose(sys.stdout, "", *sum_lines(holders, times))
    if args.profile and times is None:
        write_prose(sys.stdout, f"{backend.name} does not tell what its operators take")
    return 0


def operator_times(
    lowerer: Lowerer, backend: Backend, inputs: Inputs | None, holders: Sequence[WeightHolder], threads: int
) -> TimeShares | None:
    """Shares of the network's time in FP32; None where the runtime does not tell.

    Args:
        lowerer: Writes the network.
        backend: Runs it.
        inputs: Samples, of which one of median size is run, or one batch where that is fixed.
        holders: Operators to be told one by one; of several layers of a node the first has its time.
        threads: The backend's threads.

    Raises:
        UsageError: If there are no inputs.
        BackendError: If the network does not compile or run.
    """
    from bitfront.backends.time_shares import time_shares

    reference = lowerer.reference
    if not inputs:
        raise UsageError("--profile: there is nothing to run the network on", "give inputs with --calib")
    batch = reference.fixed_batch or 1
    rows = rows_like(inputs, median_sample(inputs), batch)
    feeds = reference.batching.feed({name: take_rows(array, rows) for name, array in inputs.items()})
    artifact = lowerer.lower({layer.name: FP32 for layer in lowerer.quantisable.layers})
    executed = backend.compile(artifact, threads=threads, batch_size=batch).profile(feeds)
    names = (*(name for holder in holders for name in (holder.name, holder.node)), *lowerer.quantisable.left_alone)
    shares = time_shares(executed, names)
    if shares is None:
        return None
    named = dict(shares.named)
    for holder in holders:
        if holder.node != holder.name:
            named[holder.name] += named.pop(holder.node, 0.0)
    return replace(shares, named=named)


def holder_rows(
    holders: Sequence[WeightHolder], quantisable: QuantisableLayers, times: TimeShares | None = None
) -> list[tuple[str, ...]]:
    """The table's rows, one per operator with weights, one cell per column."""
    from bitfront.core.formatting import MISSING

    group_of = {name: group.name for group in quantisable.groups for name in group.layers}

    def row(holder: WeightHolder) -> tuple[str, ...]:
        layer = holder.layer
        groups = layer.conv_groups if layer else 1
        return (
            holder.name,
            holder.op + (f" (groups {groups})" if groups > 1 else ""),
            "×".join(str(size) for size in holder.shape),
            f"{holder.weights:,}" if holder.weights else "shared",
            f"{holder.share:.1%}" if holder.weights else MISSING,
            *([f"{times.named[holder.name]:.1%}"] if times else []),
            group_of[layer.name] if layer else MISSING,
            " ".join(scheme.text for scheme in layer.schemes) if layer else MISSING,
        )

    return [row(holder) for holder in holders]


def sum_lines(holders: Sequence[WeightHolder], times: TimeShares | None) -> list[str]:
    """Sentences on the shares of weights, and of time, that stay as they are."""
    from bitfront.lowering.coverage import fixed_share

    lines = [f"Weights that stay as they are: {fixed_share(holders):.1%} of {sum(h.weights for h in holders):,}."]
    if times:
        improvable = sum(times.named[holder.name] for holder in holders if not holder.is_fixed)
        lines.append(
            f"Time in layers that may take another precision: {improvable:.1%}; in operators that stay as they are: "
            f"{sum(times.named.values()) - improvable:.1%}; in operators without weights, some of which follow the "
            f"layers around them: {sum(times.others.values()):.1%}"
        )
        kinds = [f"{kind} {share:.1%}" for kind, share in list(times.others.items())[:_MOST_NAMES] if share >= 0.0005]
        lines[-1] += f" ({', '.join(kinds)})." if kinds else "."
    return lines


def left_alone_lines(
    holders: Sequence[WeightHolder], quantisable: QuantisableLayers, times: TimeShares | None = None
) -> list[str]:
    """Reason → the operators that it is about, a line each, those with most weights first."""
    share = {holder.name: holder.share for holder in holders}
    reasons = dict(quantisable.left_alone) | {holder.name: holder.reason for holder in holders if holder.reason}
    found: dict[str, list[str]] = {}
    for name, reason in sorted(reasons.items(), key=lambda item: -share.get(item[0], 0.0)):
        found.setdefault(reason, []).append(name)

    def shares(names: Sequence[str]) -> str:
        weights = f"{sum(share.get(name, 0.0) for name in names):.1%} of the weights"
        return f"{weights}, {sum(times.named[name] for name in names):.1%} of the time" if times else weights

    return [f"{reason} ({shares(names)}): {_listed(names)}" for reason, names in found.items()]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def group_lines(quantisable: QuantisableLayers) -> list[str]:
    """Groups whose layers must share one scheme, and why."""
    return [
        f"{group.name}: {', '.join(group.layers)} ({group.reason})"
        for group in quantisable.groups
        if len(group.layers) > 1
    ]


def refusal_lines(layers: Sequence[Layer]) -> list[str]:
    """Reason → the layers and schemes it refuses, a line each, so that a reason shared by all is read once."""
    found: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        reasons: dict[str, list[str]] = {}
        for scheme, reason in layer.refused.items():
            reasons.setdefault(reason, []).append(scheme)
        for reason, schemes in reasons.items():
            found.setdefault((", ".join(schemes), reason), []).append(layer.name)
    return [
        f"{schemes}: {reason} ({'every layer' if len(names) == len(layers) else ', '.join(names)})"
        for (schemes, reason), names in found.items()
    ]
