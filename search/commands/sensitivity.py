"""``search sensitivity``: the loss of each scheme in each group, without searching."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bitfront.core import CalibrationSettings, ContentStore, Precision, UsageError, as_metric, write_text
from bitfront.core.cells import frame_text
from bitfront.search.arguments import arguments, values
from bitfront.search.console import progress
from bitfront.search.console.tables import Narrowing, write_table
from bitfront.search.console.terminal import write_lines, write_prose
from bitfront.search.run_folder import folder as run_folder
from bitfront.search.run_folder.lock import hold_run_folders

if TYPE_CHECKING:
    from bitfront.backends.base import Backend
    from bitfront.report.rows import Score
    from bitfront.search.inputs.source import Source
    from bitfront.sensitivity.table import SensitivityRow, SensitivityTable

USAGE = "search sensitivity [options]"
DESCRIPTION = """\
Score every scheme of every group of layers on calibration inputs, and print what each costs the network's outputs:
single-layer, by the error that it makes in its own layer on the runtime, carried through the FP32 network, and
leave-one-out, of a group's lowest precision where all others are at theirs.

  search sensitivity --model net.onnx --calib calib.npz --out scores"""
MEASURES = {"auto": None, "kl": "classes", "nsr": "values"}  # option → what is taken to be declared of the outputs
COLUMNS = ("group", "scheme", "single-layer", "leave-one-out", "loss", "remark")
_REMARK = COLUMNS.index("remark")
_SHORT = 20  # columns of a remark on a narrow terminal


def build_parser() -> arguments.Parser:
    """The command's options."""
    parser = arguments.Parser("search sensitivity", USAGE, DESCRIPTION)
    arguments.add_source(parser, evaluation=False)
    group = parser.add_argument_group("Scores")
    arguments.add_precisions(group)
    arguments.add_runtime(group, batch=False)
    arguments.add_calibration(group)
    arguments.add_sensitivity_samples(group)
    group.add_argument(
        "--measure",
        choices=MEASURES,
        default="auto",
        help="what scores are: kl, divergence of class scores, nsr, noise of numbers (default: auto, by the workload's "
        "metric, or else kl where the network ends in a softmax)",
    )
    output = parser.add_argument_group("Output")
    output.add_argument(
        "--out",
        type=values.path,
        metavar="FOLDER",
        help="where sensitivity.csv and a chart, sensitivity.html, are written (default: printed only)",
    )
    output.add_argument("--quiet", action="store_true", help="no progress (default: off)")
    return parser


def run(argv: Sequence[str]) -> int:
    """Score, print the table, and write it where asked.

    Raises:
        EngineError: For everything the person can mend.
    """
    args = arguments.parse(build_parser(), argv)
    settings = arguments.calibration_of(args)
    source = arguments.source_of(args)
    backend = arguments.backend_of(args)
    source.check_files()
    if args.out is not None:
        run_folder.check_writable(args.out)

    with hold_run_folders(*([] if args.out is None else [args.out])):
        return _score(args, source, backend, settings)


def _score(args: argparse.Namespace, source: Source, backend: Backend, settings: CalibrationSettings) -> int:
    from bitfront.lowering.dialects.registry import get_dialect
    from bitfront.lowering.lowerer import Lowerer
    from bitfront.report.render import render_sensitivity
    from bitfront.search.inputs.loading import load_to_score
    from bitfront.search.space.only_fp32 import why_only_fp32
    from bitfront.sensitivity.divergence_metric import KL, metric_in_words, output_readings
    from bitfront.sensitivity.score import planned_steps, score_sensitivities

    with progress.progress_display(sys.stderr, quiet=args.quiet, time_limit_s=None) as listener:
        listener.phase("load", None)
        reference, calibration, metric = load_to_score(source)
        for notice in (*reference.notices, *source.notices):
            listener.warn(notice)
        if calibration is None:
            raise UsageError("--calib is missing: sensitivities are scored on inputs", "give --calib calib.npz")
        declared = MEASURES[args.measure] or (None if metric is None else as_metric(metric).outputs_are)
        store = ContentStore(None if args.out is None else args.out / "cache")
        lowerer = Lowerer(reference, get_dialect(backend.dialect), calibration, settings, store)
        listener.phase("sensitivity", planned_steps(lowerer.quantisable, args.precisions))
        table = score_sensitivities(
            lowerer,
            backend.proxy_backend(),
            calibration,
            samples=args.sensitivity_samples,
            read=output_readings(reference.proto, declared),
            precisions=args.precisions,
            threads=args.threads,
            store=store,
            on_step=listener.step,
            batching=reference.batching,
        )
    found = rows(table)
    for notice in source.notices:
        write_prose(sys.stdout, f"warning: {notice}", "")
    if found:
        narrowings = (
            Narrowing(column=_REMARK, cells=tuple(_short(row[_REMARK]) for row in found)),
            Narrowing(column=COLUMNS.index("leave-one-out")),
            Narrowing(column=_REMARK),
        )
        write_table(sys.stdout, COLUMNS, found, wrapping=1, names=(0,), narrowings=narrowings)
        on = f"on {table.samples} calibration samples; loss is the cleaned score"
        write_prose(sys.stdout, "", f"{metric_in_words(table.divergence_metric)}, {on}")
        if declared is None and KL not in table.divergence_metric:
            hint = "the outputs were taken for numbers; if they are scores of classes, --measure kl suits them better"
            write_prose(sys.stdout, hint)
    else:
        write_prose(sys.stdout, *why_only_fp32(lowerer, args.precisions))
    if args.out is not None:
        path = args.out / "sensitivity.csv"
        write_text(path, frame_text(table.frame()))
        render_sensitivity(scores(table), args.out / "sensitivity.html", notices=source.notices)
        write_lines(sys.stdout, str(path), str(args.out / "sensitivity.html"))
    return 0


def _short(remark: str) -> str:
    words = remark.partition(":")[0]
    return words if len(words) <= _SHORT else "left out"


def scores(table: SensitivityTable) -> list[Score]:
    """The table as the report reads it."""
    from bitfront.report.rows import Score

    return [
        Score(
            group=row.group,
            scheme=row.scheme,
            single_layer=row.single_layer,
            leave_one_out=row.leave_one_out,
            loss=row.loss,
            dropped=row.dropped,
        )
        for row in table.rows
    ]


def rows(table: SensitivityTable) -> list[tuple[str, ...]]:
    """The table's rows, one per scored scheme; FP32's zeros are left out."""
    from bitfront.core.formatting import number
    from bitfront.sensitivity.losses import contexts_disagree

    def remark(row: SensitivityRow) -> str:
        return row.dropped or ("contexts disagree: it interacts with other layers" if contexts_disagree(row) else "")

    return [
        (row.group, row.scheme.text, number(row.single_layer), number(row.leave_one_out), number(row.loss), remark(row))
        for row in table.rows
        if row.scheme.precision is not Precision.FP32
    ]
