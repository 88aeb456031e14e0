"""The main job: search for the best network within the budgets."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitfront.core import ContentStore, Metric, UsageError
from bitfront.search.arguments import arguments, limit_arguments, pass_arguments, values
from bitfront.search.console import progress
from bitfront.search.console.secrets import masked_arguments
from bitfront.search.events import Listener
from bitfront.search.options import RunOptions
from bitfront.search.run_folder import folder as run_folder
from bitfront.search.run_folder.lock import hold_run_folders

if TYPE_CHECKING:
    from bitfront.backends.base import Backend
    from bitfront.search.inputs.loading import Opened

USAGE = "search [options]\n       search COMMAND ... (COMMAND --help says more)"
DESCRIPTION = """\
Find the best mixed-precision version of a trained network within latency, size and accuracy budgets. Every point
of the result was built and timed on the real runtime; each comes as a model file and a reusable per-layer config.

  search --budget-ms 5 --min-acc 0.75                      on an embedded demo
  search --model net.onnx --calib calib.npz --eval eval.npz --budget-ms 0.3 --max-drop 0.01
  search --workload my_module:workload --budget-mb 0.4 --time-limit 5m
  search --workload my_module:workload --passes prune,distill,qat --train-budget 20 --max-drop 0.01
  search --backend ort-cpu,openvino --budget-ms ort-cpu=5,openvino=4      on both, compared"""
EPILOG = """\
Commands:
  sensitivity                 how much each precision hurts each layer
  apply CONFIG                rebuild a model from a saved config
  measure MODEL ...           time model files against each other
  report RUN                  write a run's report again from its saved results
  inspect MODEL               layers, groups, and what each may become
  backends                    runtimes, what each does here, or why it cannot start

Exit status: 0 a point meets every budget, on every backend; 3 none does (the nearest are listed); 2 bad usage or
input, or output that cannot be written; 130 interrupted (143 SIGTERM, 129 SIGHUP): the report holds what was known."""


def build_parser() -> arguments.Parser:
    """The main job's options."""
    parser = arguments.Parser("search", USAGE, DESCRIPTION, EPILOG)
    limit_arguments.add_budget(parser)
    arguments.add_source(parser, evaluation=True)
    group = parser.add_argument_group("Search")
    arguments.add_precisions(group)
    arguments.add_runtime(group, batch=True)
    group.add_argument(
        "--trials",
        type=values.whole,
        default=48,
        metavar="N",
        help="candidates tried at most; baselines are always tried, and count (default: %(default)s)",
    )
    group.add_argument(
        "--time-limit",
        type=values.duration_s,
        metavar="TIME",
        help="limit of the search phase: seconds, or as in 90s, 5m, 1h (default: none)",
    )
    group.add_argument(
        "--seed", type=values.whole, default=0, metavar="N", help="seed of every random draw (default: %(default)s)"
    )
    arguments.add_calibration(group)
    arguments.add_sensitivity_samples(group)
    group.add_argument(
        "--holdout",
        type=values.number,
        default=0.5,
        metavar="FRACTION",
        help="share of the evaluation data kept for the final scores (default: %(default)s)",
    )
    group.add_argument(
        "--storage", metavar="URL", help="Optuna storage of the study (default: SQLite in the run folder)"
    )
    pass_arguments.add_passes(parser)
    output = parser.add_argument_group("Output")
    output.add_argument("--out", type=values.path, metavar="FOLDER", help="run folder (default: runs/NAME-1, -2, ...)")
    output.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --out, or else the latest of this name, without repeating measurements",
    )
    output.add_argument(
        "--save-engine",
        action="store_true",
        help="also keep each finalist as the runtime's own file, models/ID.engine (default: off)",
    )
    output.add_argument("--quiet", action="store_true", help="print the result and errors only (default: off)")
    output.add_argument("--version", action="store_true", help="print the version and exit")
    return parser


def options_of(args: argparse.Namespace, out: Path, batch_size: int) -> RunOptions:
    """The options of a run on one backend, validated.

    Raises:
        UsageError: If one makes no sense.
    """
    (options,) = all_options(args, (args.backend,), {args.backend: out}, batch_size)
    return options


def all_options(
    args: argparse.Namespace, backends: Sequence[str], folders: Mapping[str, Path], batch_size: int
) -> tuple[RunOptions, ...]:
    """The options of the search on each backend, validated.

    Raises:
        UsageError: If one makes no sense.
    """
    budgets = limit_arguments.budgets_of(args, backends)
    passes, preference = pass_arguments.passes_of(args), limit_arguments.preference_of(args)
    return tuple(
        RunOptions(
            budget=budgets[backend],
            out=folders[backend],
            precisions=args.precisions,
            backend=backend,
            threads=args.threads,
            batch_size=batch_size,
            trials=args.trials,
            time_limit_s=args.time_limit,
            seed=args.seed,
            calibration=arguments.calibration_of(args),
            holdout=args.holdout,
            sensitivity_samples=args.sensitivity_samples,
            storage=args.storage,
            save_engine=args.save_engine,
            resume=args.resume,
            passes=passes,
            preference=preference,
        )
        for backend in backends
    )


def run(argv: Sequence[str]) -> int:
    """Search, and print what was found.

    Raises:
        EngineError: For everything the person can mend.
    """
    args = arguments.parse(build_parser(), argv)
    here, source = _here(), arguments.source_of(args)
    # Everything that can be refused cheaply is refused before the network is loaded, or a demo trained.
    names = tuple(name.strip() for name in args.backend.split(","))
    all_options(args, names, dict.fromkeys(names, args.out or run_folder.RUNS), args.batch_size or 1)
    passes = pass_arguments.passes_of(args)
    pass_arguments.check_backends(passes, names)
    backends = arguments.backends_of(args)
    if args.storage is not None:
        from bitfront.search.run_folder.storage import check_storage  # loads Optuna

        check_storage(args.storage)
    if args.out is not None:
        run_folder.check_writable(run_folder.choose_run_folder(args.out, "", resume=args.resume))
    from bitfront.search.inputs.loading import open_source

    opened = open_source(source)
    _check_limits(args, names, opened.metric)
    if passes is not None and opened.workload is not None:
        from bitfront.search.inputs.passes import check_passes

        check_passes(opened.workload, opened.label, passes)
    with contextlib.chdir(here):
        out = run_folder.choose_run_folder(args.out, opened.name, resume=args.resume)
        run_folder.check_writable(out)
        if args.resume:
            run_folder.check_kind(out, backends=len(backends))
    command = shlex.join(["search", *masked_arguments(argv)])
    place = here / out
    with hold_run_folders(*_folders(place, tuple(backends))):
        with progress.progress_display(sys.stderr, quiet=args.quiet, time_limit_s=args.time_limit) as listener:
            if len(backends) > 1:
                code = _search_on_backends(args, opened, backends, place, listener, command)
            else:
                code = _search(args, opened, backends[args.backend.strip()], place, listener, command)
        with contextlib.chdir(here):
            _summarise(out, quiet=args.quiet, multi_backend=len(backends) > 1)
    return code


def _here() -> Path:
    """The working directory; a person's own code may change it before the run folder is written."""
    try:
        return Path.cwd()
    except OSError as error:
        raise UsageError(
            f"the working directory cannot be found: {error.strerror or error}", "change to a folder that exists"
        ) from error


def _summarise(out: Path, *, quiet: bool, multi_backend: bool) -> None:
    if multi_backend:
        from bitfront.search.multi_backend.summary import write_comparison

        write_comparison(out, sys.stdout, quiet=quiet)
    else:
        from bitfront.search.results.summary import print_summary

        print_summary(out, sys.stdout, quiet=quiet)


def _folders(out: Path, backends: tuple[str, ...]) -> list[Path]:
    """The run folder, and those of several backends in it: each may be somebody's run folder."""
    if len(backends) == 1:
        return [out]
    from bitfront.search.multi_backend.runs import folder_names

    return [out, *(out / label for label in folder_names(backends).values())]


def _search(
    args: argparse.Namespace, opened: Opened, backend: Backend, out: Path, listener: Listener, command: str
) -> int:
    from bitfront.lowering.dialects.registry import get_dialect
    from bitfront.lowering.lowerer import Lowerer
    from bitfront.search.inputs.loading import batch_size, load
    from bitfront.search.inputs.validate_inputs import check_reference
    from bitfront.search.run import run as run_search

    listener.phase("load", None)
    workload, reference = load(opened, args.batch_size, pass_arguments.passes_of(args))
    for notice in (*reference.notices, *opened.source.notices, *workload.notices):
        listener.warn(notice)
    options = options_of(args, out, batch_size(args.batch_size, workload, reference))
    mean = check_reference(reference, backend, workload, threads=options.threads, batch_size=options.batch_size)
    _warn_of_per_cent(options.budget.min_accuracy, mean, listener)
    store = ContentStore(out / "cache")
    lowerer = Lowerer(reference, get_dialect(backend.dialect), workload.calibration, options.calibration, store)
    return run_search(workload, lowerer, backend, options, listener, command=command).exit_code


def _search_on_backends(
    args: argparse.Namespace,
    opened: Opened,
    backends: Mapping[str, Backend],
    out: Path,
    listener: Listener,
    command: str,
) -> int:
    from bitfront.lowering.dialects.registry import get_dialect
    from bitfront.lowering.lowerer import Lowerer
    from bitfront.search.inputs.loading import batch_size, load
    from bitfront.search.inputs.validate_inputs import check_reference
    from bitfront.search.multi_backend.runs import BackendSearch, folder_names, run_on_backends

    listener.phase("load", None)
    workload, reference = load(opened, args.batch_size)
    for notice in (*reference.notices, *opened.source.notices, *workload.notices):
        listener.warn(notice)
    folders = {name: out / label for name, label in folder_names(tuple(backends)).items()}
    size = batch_size(args.batch_size, workload, reference)
    searches = []
    for options in all_options(args, tuple(backends), folders, size):
        backend = backends[options.backend]
        mean = check_reference(reference, backend, workload, threads=options.threads, batch_size=size)
        _warn_of_per_cent(options.budget.min_accuracy, mean, listener)
        # Each has its own cache, so that its folder can be taken away alone.
        store = ContentStore(options.out / "cache")
        lowerer = Lowerer(reference, get_dialect(backend.dialect), workload.calibration, options.calibration, store)
        searches.append(BackendSearch(backend=backend, lowerer=lowerer, options=options))
    return run_on_backends(workload, searches, out, listener, time_limit_s=args.time_limit, command=command).exit_code


def _warn_of_per_cent(floor: float | None, mean: float, listener: Listener) -> None:
    if floor is not None and 0 < floor <= 1 and 2 < mean <= 100:
        listener.warn(
            f"--min-acc {floor:g}: the metric gives {mean:.4g} on the first samples; if that is per cent, every point "
            f"meets the limit: give --min-acc {100 * floor:g}"
        )


def _check_limits(args: argparse.Namespace, backends: Sequence[str], metric: Metric) -> None:
    """Refuse limits of a metric of the other direction, and those in per cent of a metric that is a fraction."""
    for budget in limit_arguments.budgets_of(args, backends).values():
        budget.refuse_other_direction(metric)
    for option, limit in (("--min-acc", args.min_acc), ("--max-drop", args.max_drop)):
        named = isinstance(limit, Mapping)
        for name, value in limit.items() if isinstance(limit, Mapping) else (("", limit),):
            if metric.in_percent and value is not None and not 0 <= value <= 1:
                given = f"{name}=" if named else ""
                raise UsageError(
                    f"{option}: expected a fraction between 0 and 1 for {metric.name}, got {given}{value:g}",
                    f"{value:g} % is {option} {given}{value / 100:g}" if 1 < value <= 100 else "0.75 is 75 %",
                )
