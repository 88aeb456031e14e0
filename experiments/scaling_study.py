"""Study of cost: time of each phase of a search and peak memory, for networks of more and more layers.

    python -m bitfront.experiments.scaling_study chain-20 chain-50 chain-100 chain-200
    python -m bitfront.experiments.scaling_study resnet50 encoder --trials 4
    python -m bitfront.experiments.scaling_study resnet50 --scores          time of both ways of scoring, and ranks

Each network runs in a process of its own, with random weights and inputs (``networks.shapes``); memory is the process's
largest resident set.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bitfront.backends import get_backend
from bitfront.core import Array, CalibrationSettings, ContentStore, Labelled, Precision
from bitfront.experiments.networks.shapes import Chain, Encoder, ResNet50
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.cli import main as search
from bitfront.search.inputs.loading import load, open_source
from bitfront.search.inputs.source import Source
from bitfront.sensitivity.divergence_metric import output_readings
from bitfront.sensitivity.score import Scoring, score_sensitivities
from bitfront.sensitivity.table import SensitivityTable

SAMPLES = 64


class Shape:
    """A workload of a network of a given shape.

    Args:
        name: ``chain-N``, ``resnet50``, or ``encoder`` or ``encoder-N`` with N layers.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.metric = "agreement"
        torch.manual_seed(0)
        generator = np.random.default_rng(0)
        kind, _, count = name.partition("-")
        self.model: torch.nn.Module
        if kind == "encoder":
            self.model = Encoder(int(count or 12))
            ids: Array = generator.integers(0, 30522, (SAMPLES, 128))
            self.calibration = {"ids": ids}
        else:
            side = 16 if kind == "chain" else 224
            self.model = Chain(int(count)) if kind == "chain" else ResNet50()
            self.calibration = {"x": generator.standard_normal((SAMPLES, 3, side, side)).astype(np.float32)}
        self.model.eval()
        self.evaluation = Labelled.without_labels(self.calibration)


def shape(data: Path) -> Shape:
    """Make the workload of which the name stands in a folder's ``name``."""
    return Shape((data / "name").read_text(encoding="utf-8"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="+", metavar="NAME", help="chain-N, resnet50, encoder, encoder-N")
    parser.add_argument("--trials", type=int, default=8, help="candidates of each search (default: 8)")
    parser.add_argument("--samples", type=int, default=32, help="samples of each score (default: 32)")
    parser.add_argument("--scores", action="store_true", help="compare both ways of scoring instead of searching")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if not options.here:
        rest = ["--trials", str(options.trials), "--samples", str(options.samples), "--here"]
        rest += ["--scores"] * options.scores
        done = [
            subprocess.run([sys.executable, "-m", "bitfront.experiments.scaling_study", name, *rest], check=False)
            for name in options.names
        ]
        return max(each.returncode for each in done)
    (name,) = options.names
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "name").write_text(name, encoding="utf-8")
        if options.scores:
            _compare(name, Path(folder), options.samples)
        else:
            _search(Path(folder), options.trials, options.samples)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(f"{name}: peak memory {peak:.2f} GiB\n")
    return 0


def _search(folder: Path, trials: int, samples: int) -> None:
    workload = ["--workload", "bitfront.experiments.scaling_study:shape", "--data", str(folder)]
    limits = ["--max-drop", "0.5", "--trials", str(trials), "--sensitivity-samples", str(samples)]
    search([*workload, *limits, "--out", str(folder / "run")])


def _compare(name: str, folder: Path, samples: int) -> None:
    from scipy.stats import spearmanr

    source = Source(workload="bitfront.experiments.scaling_study:shape", data=folder)
    loaded, reference = load(open_source(source), None)
    store, backend = ContentStore(None), get_backend("ort-cpu")
    lowerer = Lowerer(reference, get_dialect(backend.dialect), loaded.calibration, CalibrationSettings(), store)
    began = time.monotonic()
    lowerer.prepare(sorted({scheme for group in lowerer.quantisable.groups for scheme in group.schemes}))
    sys.stdout.write(f"{name}: {len(lowerer.quantisable.groups)} groups\n")
    sys.stdout.write(f"{name}: calibrated and rounded in {time.monotonic() - began:.1f} s\n")
    tables: dict[Scoring, SensitivityTable] = {}
    for scoring in Scoring:
        began = time.monotonic()
        tables[scoring] = score_sensitivities(
            lowerer,
            backend,
            loaded.calibration,
            samples=samples,
            read=output_readings(reference.proto, None),
            precisions=tuple(Precision),
            threads=2,
            store=store,
            on_step=lambda _: None,
            batching=reference.batching,
            scoring=scoring,
        )
        sys.stdout.write(f"{name}: scored {scoring.value} in {time.monotonic() - began:.1f} s\n")
        sys.stdout.flush()
    for column in ("single_layer", "loss"):
        pairs = [
            (getattr(one, column), getattr(other, column))
            for one, other in zip(*(table.rows for table in tables.values()), strict=True)
            if one.scheme.text != "fp32"
        ]
        usable = np.array([pair for pair in pairs if np.isfinite(pair).all()])
        sys.stdout.write(f"{name}: {column}: Spearman {spearmanr(*usable.T).statistic:.4f} of {len(usable)} scores\n")


if __name__ == "__main__":
    sys.exit(main())
