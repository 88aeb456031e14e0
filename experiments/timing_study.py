"""A/A test of the timing: how often two copies of one file are told apart, on a machine as it is or kept busy.

    python -m bitfront.experiments.timing_study --model net.onnx --tries 40
    python -m bitfront.experiments.timing_study --model net.onnx --tries 40 --busy 2

Each try compiles the file twice and times the copies against each other as a search times its candidates. They *differ*
where the interval of their ratio leaves out 1, which 5 % of the tries may. Beside that stand the spread of the ratios
over the tries and the half width that their intervals claim. ``--busy`` starts so many processes that do nothing but
compute, and ends them.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bitfront.backends import THOROUGH, TimingSettings, get_backend, time_paired
from bitfront.core import EngineError, LatencyStats, UsageError
from bitfront.search.commands.measure import batching, declared_inputs, random_inputs, read_model
from bitfront.search.console.tables import plain_table
from bitfront.search.measuring.runner import QUICK
from bitfront.search.results.finalists import CLOSE

SETTINGS = {"search": QUICK, "finalists": CLOSE, "measure": THOROUGH}
_COMPUTE = "while True: pass"
_COLUMNS = ("timing", "busy", "tries", "copies differ", "spread of ratios", "median half width", "latency, ms")
_ALLOWED = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status: 0 where at most 5 % of the tries tell the copies apart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="an ONNX file")
    parser.add_argument("--backend", default="ort-cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside the timing")
    parser.add_argument("--timing", choices=SETTINGS, default="search", help="whose settings")
    options = parser.parse_args(argv)
    try:
        if options.tries < 1 or options.busy < 0:
            raise UsageError("--tries and --busy: expected positive numbers", "as in --tries 40 --busy 2")
        with busy(options.busy):
            tries = repeated(options, SETTINGS[options.timing])
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    row = (options.timing, str(options.busy), *cells(tries))
    sys.stdout.write(plain_table(_COLUMNS, [row]) + "\n")
    return 0 if share_apart(tries) <= _ALLOWED else 1


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many processes computing meanwhile."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            child = stack.enter_context(subprocess.Popen([sys.executable, "-c", _COMPUTE]))
            stack.callback(child.kill)
        yield


def repeated(options: argparse.Namespace, settings: TimingSettings) -> list[LatencyStats]:
    """Latency of the second copy in each try.

    Raises:
        EngineError: If the file cannot be read, compiled or run.
    """
    artifact, backend = read_model(options.model), get_backend(options.backend)
    layout = batching(artifact.data, {})
    setup = {"threads": options.threads, "batch_size": layout.fixed or 1}
    declared = declared_inputs(artifact.data)
    inputs = layout.feed(random_inputs(declared, layout, setup["batch_size"], str(options.model)))
    tries: list[LatencyStats] = []
    known_ms: float | None = None
    for _ in range(options.tries):
        stats = time_paired(
            {name: backend.compile(artifact, **setup) for name in ("first", "second")},
            "first",
            inputs,
            replace(settings, undisturbed_ms=known_ms),
            clock=backend.clock,
            processor_clock=backend.processor_clock,
            **setup,
        )
        found_ms = stats["first"].median_ms
        known_ms = found_ms if known_ms is None else min(known_ms, found_ms)
        tries.append(stats["second"])
    return tries


def share_apart(tries: Sequence[LatencyStats]) -> float:
    """Share of the tries in which a copy is told from the other."""
    return sum(not found.ratio_low <= 1 <= found.ratio_high for found in tries) / len(tries)


def cells(tries: Sequence[LatencyStats]) -> tuple[str, ...]:
    """Cells of the table's row, from the number of tries on."""
    ratios = np.array([found.ratio for found in tries])
    return (
        str(len(tries)),
        f"{share_apart(tries):.1%}",
        f"{ratios.std():.2%}",
        f"{np.median([found.ratio_error for found in tries]):.2%}",
        f"{np.median([found.median_ms for found in tries]):.4g}",
    )


if __name__ == "__main__":
    sys.exit(main())
