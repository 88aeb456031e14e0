"""``search inspect``: a network's operators with weights, the schemes each may take, and why it may take no others."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bitfront.core import CalibrationSettings, ContentStore, UsageError
from bitfront.search.arguments import arguments, values
from bitfront.search.console import inspection
from bitfront.search.console.tables import Narrowing, write_table
from bitfront.search.console.terminal import write_message, write_prose
from bitfront.search.inputs.arrays import shown_shape
from bitfront.search.inputs.data.random_data import RANDOM
from bitfront.search.inputs.networks.tasks import hf_folder
from bitfront.search.inputs.source import Source

USAGE = "search inspect MODEL [options]\n       search inspect --workload MODULE:ATTR [options]"
DESCRIPTION = """\
List a network's operators with weights: their share of the weights and, with --profile, of the time; what each may
become on a runtime, and what it may not become and why.

  search inspect net.onnx
  search inspect net.onnx --profile --calib calib.npz"""


def build_parser() -> arguments.Parser:
    """The command's options."""
    parser = arguments.Parser("search inspect", USAGE, DESCRIPTION)
    parser.add_argument("network", type=values.path, nargs="?", metavar="MODEL", help="ONNX file")
    group = parser.add_argument_group("Options")
    group.add_argument("--workload", metavar="MODULE:ATTR", help="a workload, or hf:FOLDER, instead of a file")
    arguments.add_task(group)
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
    drawn = RANDOM if args.profile and (args.workload is None or hf_folder(args.workload) is not None) else None
    source = Source(
        model=args.network,
        workload=args.workload,
        task=args.task,
        data=args.data,
        calibration=args.calib or drawn,
        data_options=tuple(args.data_options or ()),
        batch_axes=tuple(args.batch_axis),
    )

    from bitfront.lowering.coverage import unquantised, weight_holders
    from bitfront.lowering.dialects.registry import get_dialect
    from bitfront.lowering.lowerer import Lowerer
    from bitfront.search.inputs.loading import load_network
    from bitfront.search.measuring.operator_times import operator_times

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
        columns = inspection.columns(times)
        narrowings = [Narrowing(column=columns.index("group"))]  # groups of several layers are told below the table
        rows = inspection.holder_rows(holders, quantisable, times)
        write_table(sys.stdout, columns, rows, wrapping=1, names=(0,), narrowings=narrowings)
    for title, lines in (
        ("Schemes", inspection.scheme_lines(quantisable.layers)),
        ("Groups of several layers", inspection.group_lines(quantisable)),
        ("Refused", inspection.refusal_lines(quantisable.layers)),
        ("Left as they are", inspection.left_alone_lines(unquantised(holders, quantisable), times)),
    ):
        if lines:
            write_prose(sys.stdout, "", f"{title}:", *(f"  {line}" for line in lines))
    if holders:
        write_prose(sys.stdout, "", *inspection.sum_lines(holders, times))
    if args.profile and times is None:
        write_prose(sys.stdout, f"{backend.name} does not tell what its operators take")
    return 0
