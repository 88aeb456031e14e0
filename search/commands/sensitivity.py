"""``search sensitivity``: how much each scheme for each group hurts the output, without searching."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bitfront.core import CalibrationSettings, ContentStore, Precision, UsageError, outputs_read, write_text
from bitfront.core.cells import frame_text
from bitfront.search import progress, run_folder
from bitfront.search.commands import arguments, values
from bitfront.search.lock import alone_in
from bitfront.search.tables import Narrowing, write_table
from bitfront.search.terminal import write_lines, write_prose

if TYPE_CHECKING:
    from bitfront.backends.base import Backend
    from bitfront.report.rows import Score
    from bitfront.search.inputs.source import Source
    from bitfront.sensitivity.table import SensitivityRow, SensitivityTable

USAGE = "search sensitivity [options]"
DESCRIPTION = """\
Score every choice of every group of layers by running the lowered network on calibration inputs, and print what each
costs: alone in the FP32 network, and restored alone in the network at its lowest precision.

  search sensitivity --model net.onnx --calib calib.npz --out scores"""
MEASURES = {"auto": None, "kl": "classes", "nsr": "values"}  # option → what is taken to be declared of the outputs
COLUMNS = ("group", "choice", "alone", "restored", "loss", "remark")
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

    with alone_in(*([] if args.out is None else [args.out])):
        return _score(args, source, backend, settings)


def _score(args: argparse.Namespace, source: Source, backend: Backend, settings: CalibrationSettings) -> int:
    from bitfront.lowering.dialects.registry import get_dialect
    from bitfront.lowering.lowerer import Lowerer
    from bitfront.report.render import render_sensitivity
    from bitfront.search.inputs.loading import load_to_score
    from bitfront.search.only_fp32 import why_only_fp32
    from bitfront.sensitivity.measure import KL, described, readings
    from bitfront.sensitivity.score import planned_steps, score

    with progress.shown(sys.stderr, quiet=args.quiet, time_limit_s=None) as listener:
        listener.phase("load", None)
        reference, calibration, metric = load_to_score(source)
        for notice in reference.notices:
            listener.warn(notice)
        if calibration is None:
            raise UsageError("--calib is missing: sensitivities are scored on inputs", "give --calib calib.npz")
        declared = MEASURES[args.measure] or (None if metric is None else outputs_read(metric))
        store = ContentStore(None if args.out is None else args.out / "cache")
        lowerer = Lowerer(reference, get_dialect(backend.dialect), calibration, settings, store)
        listener.phase("sensitivity", planned_steps(lowerer.quantisable, args.precisions))
        table = score(
            lowerer,
            backend.proxy_backend(),
            calibration,
            samples=args.sensitivity_samples,
            read=readings(reference.proto, declared),
            precisions=args.precisions,
            threads=args.threads,
            store=store,
            on_step=listener.step,
            batching=reference.batching,
        )
    found = rows(table)
    if found:
        narrowings = (
            Narrowing(column=_REMARK, cells=tuple(_short(row[_REMARK]) for row in found)),
            Narrowing(column=COLUMNS.index("restored")),
            Narrowing(column=_REMARK),
        )
        write_table(sys.stdout, COLUMNS, found, wrapping=1, names=(0,), narrowings=narrowings)
        on = f"on {table.samples} calibration samples; loss is the cleaned score"
        write_prose(sys.stdout, "", f"{described(table.measure)}, {on}")
        if declared is None and KL not in table.measure:
            hint = "the outputs were taken for numbers; if they are scores of classes, --measure kl suits them better"
            write_prose(sys.stdout, hint)
    else:
        write_prose(sys.stdout, *why_only_fp32(lowerer, args.precisions))
    if args.out is not None:
        path = args.out / "sensitivity.csv"
        write_text(path, frame_text(table.frame()))
        render_sensitivity(scores(table), args.out / "sensitivity.html")
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
            alone=row.alone,
            restored=row.restored,
            loss=row.loss,
            dropped=row.dropped,
        )
        for row in table.rows
    ]


def rows(table: SensitivityTable) -> list[tuple[str, ...]]:
    """One row a scored scheme; FP32's zeros are left out."""
    from bitfront.report.wording import number
    from bitfront.sensitivity.clean import disagrees

    def remark(row: SensitivityRow) -> str:
        return row.dropped or ("contexts disagree: it interacts with other layers" if disagrees(row) else "")

    return [
        (row.group, row.scheme.text, number(row.alone), number(row.restored), number(row.loss), remark(row))
        for row in table.rows
        if row.scheme.precision is not Precision.FP32
    ]
