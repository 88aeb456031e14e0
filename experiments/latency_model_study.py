"""Error of the latency model on mixes that it has not seen, after a few observations.

    python -m bitfront.experiments.latency_model_study --data ../shared/data

Random mixes of FP32 and INT8 over the network's groups are timed beside FP32, as a search times its candidates. The
model is fitted to the uniform baselines and the first mixes, so that it has ``--observations`` in all, and predicts the
others: relative errors of the ratio, rank correlation, and how many lie within the spread that it tells.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from bitfront.backends import CompiledModel, get_backend, time_paired
from bitfront.backends.registry import default_interpreter
from bitfront.core import FP32, CalibrationSettings, ContentStore, EngineError, LatencyStats, Scheme, UsageError
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.export import export_reference
from bitfront.lowering.load import load_reference
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.console.tables import plain_table
from bitfront.search.inputs.workloads import load_workload
from bitfront.search.measuring.runner import QUICK
from bitfront.search.proposals.latency_model import fit_encodings
from bitfront.search.proposals.mutations import draw
from bitfront.search.space.space import Encoding, GroupSpace, Space

_INT8 = Scheme.parse("int8:nearest")
_ONE_SIDED = 1.64
_COLUMNS = ("observations", "mixes", "median error", "p90 error", "Spearman", "within 1.64 spreads")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workload", default="bitfront.experiments.workloads:squeezenet", help="module:attribute")
    parser.add_argument("--data", type=Path, help="folder of the published weights and images")
    parser.add_argument("--backend", default="ort-cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--observations", type=int, default=16)
    parser.add_argument("--mixes", type=int, default=30, help="mixes to predict")
    parser.add_argument("--samples", type=int, default=32, help="calibration samples")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    try:
        if options.observations < 3 or options.mixes < 3:
            raise UsageError("--observations and --mixes: expected 3 or more", "as in --observations 16 --mixes 30")
        space, timed = _timed(options)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(plain_table(_COLUMNS, [row(space, timed, options.observations)]) + "\n")
    return 0


def _timed(options: argparse.Namespace) -> tuple[Space, list[tuple[Encoding, LatencyStats]]]:
    """The space, and the baselines and mixes with their latencies."""
    workload, backend = load_workload(options.workload, options.data), get_backend(options.backend)
    reference = (
        load_reference(workload.model, default_interpreter())
        if isinstance(workload.model, Path)
        else export_reference(workload.model, workload.calibration, default_interpreter(), name=workload.name)
    )
    settings = CalibrationSettings(samples=options.samples)
    lowerer = Lowerer(reference, get_dialect(backend.dialect), workload.calibration, settings, ContentStore(None))
    space, rng = space_of_two(lowerer), np.random.default_rng(options.seed)
    uniform = [space.encode(assignment) for _, assignment in space.baselines()]
    mixes = [draw(space, rng) for _ in range(options.observations - len(uniform) + options.mixes)]
    setup = {"threads": options.threads, "batch_size": reference.fixed_batch or 1}
    inputs = reference.batching.feed({n: a[: setup["batch_size"]] for n, a in workload.calibration.items()})

    def compiled(encoding: Encoding) -> CompiledModel:
        return backend.compile(lowerer.lower(lowerer.quantisable.spread(space.decode(encoding))), **setup)

    fp32, known_ms, timed = compiled((0,) * len(space.groups)), None, []
    for encoding in dict.fromkeys((*uniform, *mixes)):
        stats = time_paired(
            {"fp32": fp32, "mix": compiled(encoding)},
            "fp32",
            inputs,
            replace(QUICK, undisturbed_ms=known_ms),
            clock=backend.clock,
            processor_clock=backend.processor_clock,
            **setup,
        )
        found_ms = stats["fp32"].median_ms
        known_ms = found_ms if known_ms is None else min(known_ms, found_ms)
        timed.append((encoding, stats["mix"]))
    return space, timed


def space_of_two(lowerer: Lowerer) -> Space:
    """FP32 and plain INT8 for each group that may take it, without losses."""

    def group(name: str, layers: Sequence[str], schemes: Sequence[Scheme]) -> GroupSpace:
        offered = (FP32, _INT8) if _INT8 in schemes else (FP32,)
        return GroupSpace(
            name=name,
            schemes=offered,
            losses=(0.0, 0.1)[: len(offered)],
            size_bytes=tuple(sum(lowerer.weight_bytes(layer, scheme) for layer in layers) for scheme in offered),
            compute_types=tuple(map(lowerer.compute_type, offered)),
            layers=len(layers),
            members=tuple(layers) if len(layers) > 1 else (),
        )

    quantisable = lowerer.quantisable
    groups = tuple(group(found.name, found.layers, found.schemes) for found in quantisable.groups)
    return Space(groups=groups, edges=quantisable.edges)


def row(space: Space, timed: Sequence[tuple[Encoding, LatencyStats]], observations: int) -> tuple[str, ...]:
    """Cells of the table: the model of the first observations, tried on the rest."""
    seen, unseen = timed[:observations], timed[observations:]
    model = fit_encodings(
        space,
        [encoding for encoding, _ in seen],
        [latency.ratio for _, latency in seen],
        deviations=[latency.ratio_deviation for _, latency in seen],
    )
    predicted = np.array([model.predict_encoding(encoding) for encoding, _ in unseen])
    spreads = np.array([model.spread(encoding) for encoding, _ in unseen])
    measured = np.array([latency.ratio for _, latency in unseen])
    errors = np.abs(predicted / measured - 1)
    return (
        str(len(seen)),
        str(len(unseen)),
        f"{np.median(errors):.1%}",
        f"{np.quantile(errors, 0.9):.1%}",
        f"{spearmanr(predicted, measured).statistic:.3f}",
        f"{np.mean(np.abs(predicted - measured) <= _ONE_SIDED * spreads):.0%}",
    )


if __name__ == "__main__":
    sys.exit(main())
