"""``search report``: write a run's report again from its saved results, running nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bitfront.search.arguments import arguments, values

USAGE = "search report RUN [options]"
DESCRIPTION = """\
Write a run's report.html and pareto.csv again from its saved results, and print its summary; of a run on
several backends, every backend's and the comparison's. Nothing is measured.

  search report runs/net-1"""


def build_parser() -> arguments.Parser:
    """The command's options."""
    parser = arguments.Parser("search report", USAGE, DESCRIPTION)
    parser.add_argument("folder", type=values.path, metavar="RUN", help="run folder (the --out of a search)")
    parser.add_argument("--quiet", action="store_true", help="print the result and errors only (default: off)")
    return parser


def run(argv: Sequence[str]) -> int:
    """Render the report.

    Raises:
        EngineError: If the folder holds no run, or cannot be written.
    """
    args = arguments.parse(build_parser(), argv)

    from bitfront.report.comparison import Comparison, is_comparison
    from bitfront.report.render import render
    from bitfront.search.multi_backend.summary import write_comparison
    from bitfront.search.results.summary import print_summary

    if is_comparison(args.folder):
        for run in Comparison.load(args.folder).runs:
            if run.results is not None:
                render(args.folder / run.folder)
        write_comparison(args.folder, sys.stdout, quiet=args.quiet)
    else:
        render(args.folder)
        print_summary(args.folder, sys.stdout, quiet=args.quiet)
    return 0
