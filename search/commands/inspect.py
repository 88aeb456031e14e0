"""``search inspect``: a network's layers and groups, the schemes each may take, and why it may take no others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bitfront.core import CalibrationSettings, ContentStore, UsageError
from bitfront.search.commands import arguments, values
from bitfront.search.console.tables import Narrowing, write_table
from bitfront.search.console.terminal import write_message, write_prose
from bitfront.search.inputs.arrays import shown_shape
from bitfront.search.inputs.source import Source

if TYPE_CHECKING:
    from bitfront.lowering.layers import Layer, QuantisableLayers

USAGE = "search inspect MODEL [options]\n       search inspect --workload MODULE:ATTR [options]"
DESCRIPTION = """\
List a network's layers and groups, what each may become on a runtime, and what it may not become and why.

  search inspect net.onnx"""
COLUMNS = ("layer", "operator", "weight", "parameters", "group", "supported precisions")
_LAYER, _GROUP = COLUMNS.index("layer"), COLUMNS.index("group")  # groups of several layers are told below the table


def build_parser() -> arguments.Parser:
    """The command's options."""
    parser = arguments.Parser("search inspect", USAGE, DESCRIPTION)
    parser.add_argument("network", type=values.path, nargs="?", metavar="MODEL", help="ONNX file")
    group = parser.add_argument_group("Options")
    group.add_argument("--workload", metavar="MODULE:ATTR", help="a workload instead of a file")
    group.add_argument("--data", type=values.path, metavar="FOLDER", help="folder passed to the workload's function")
    group.add_argument("--backend", default="ort-cpu", metavar="NAME", help="runtime (default: %(default)s)")
    return parser


def run(argv: Sequence[str]) -> int:
    """Print the network's quantisable layers and groups.

    Raises:
        EngineError: For everything the person can mend.
    """
    args = arguments.parse(build_parser(), argv)
    if args.network is None and args.workload is None:
        raise UsageError("expected a MODEL or --workload", "see 'search inspect --help'")
    backend = arguments.backend_of(args)
    source = Source(model=args.network, workload=args.workload, data=args.data)

    from bitfront.lowering.dialects.registry import get_dialect
    from bitfront.lowering.lowerer import Lowerer
    from bitfront.lowering.unquantised import unquantised_operators
    from bitfront.search.inputs.loading import load_network

    reference, _ = load_network(source)
    for notice in reference.notices:
        write_message(sys.stderr, "warning", notice)
    dialect = get_dialect(backend.dialect)
    quantisable = Lowerer(reference, dialect, None, CalibrationSettings(), ContentStore(None)).quantisable
    total = sum(layer.parameters for layer in quantisable.layers)
    layout = reference.batching
    shapes = ", ".join(
        f"{name} {shown_shape(shape, layout.input_axis(name) if layout.fixed is None else None)}"
        for name, shape in reference.input_shapes.items()
    )
    write_prose(
        sys.stdout,
        f"{reference.source}: inputs {shapes}; {len(quantisable.layers)} layers in {len(quantisable.groups)} groups, "
        f"{total:,} weights; dialect {dialect.name}",
        "",
    )
    left_alone = quantisable.left_alone
    if quantisable.layers:
        narrowings = [Narrowing(column=_GROUP)]
        write_table(sys.stdout, COLUMNS, layer_rows(quantisable), wrapping=1, names=(_LAYER,), narrowings=narrowings)
    else:
        left_alone = unquantised_operators(reference.proto, quantisable)
        holding = "" if left_alone else " None of its operators holds weights."
        text = f"No layer of this network can take another precision; a search ends with FP32.{holding}"
        write_prose(sys.stdout, text)
    for title, lines in (
        ("Groups of several layers", group_lines(quantisable)),
        ("Refused", refusal_lines(quantisable.layers)),
        ("Left as they are", [f"{node}: {reason}" for node, reason in left_alone.items()]),
    ):
        if lines:
            write_prose(sys.stdout, "", f"{title}:", *(f"  {line}" for line in lines))
    return 0


def layer_rows(quantisable: QuantisableLayers) -> list[tuple[str, ...]]:
    """The table's rows, one per layer, one cell per column of ``COLUMNS``."""
    group_of = {name: group.name for group in quantisable.groups for name in group.layers}
    return [
        (
            layer.name,
            layer.op + (f" (groups {layer.conv_groups})" if layer.conv_groups > 1 else ""),
            "×".join(str(size) for size in layer.weight_shape),
            f"{layer.parameters:,}",
            group_of[layer.name],
            " ".join(scheme.text for scheme in layer.schemes),
        )
        for layer in quantisable.layers
    ]


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
