"""Precisions alone, pruning alone, distillation alone and everything together: four fronts at equal wall clock.

    python -m bitfront.experiments.joint_study --data ../shared/data --minutes 20

Each search is a run as a user would start it, with the same time limit and within the same accuracy drop; pruning
alone and distillation alone keep FP32. Fronts are those of the finalists: latency as a ratio to FP32 timed beside it in
a fresh process, accuracy on held-out data. Their hypervolumes share one worst corner: FP32's latency and size, and
twice the allowed drop. ``fronts.html`` in ``--out`` shows them. Searches that are finished there already are kept, one
that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bitfront.core import BackendError, EngineError, write_text
from bitfront.core.given_network import GivenNetwork
from bitfront.core.pareto import Objectives, hypervolume, pareto_front
from bitfront.core.point import Point
from bitfront.report.html import plot_page
from bitfront.report.results import RunResults
from bitfront.search.console.tables import plain_table

MINUTES = 20.0
TRAIN_SHARE = 0.75  # of the time limit
FAST, FAST_DROP = 0.35, 0.02
SMALL, SMALL_DROP = 0.12, 0.01
SEARCHES: Mapping[str, tuple[str, ...]] = {
    "precisions alone": (),
    "pruning alone": ("--precisions", "fp32", "--passes", "prune"),
    "distillation alone": ("--precisions", "fp32", "--passes", "distill"),
    "everything": ("--passes", "prune,distill,qat"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Result of one search of the study.

    Attributes:
        name: The search's.
        points: Finalists that hold their latency, those on the front.
        objectives: Held-back accuracy, ratio to FP32's latency, share of FP32's bytes; one a point.
        volume: Its hypervolume below the common corner.
        fp32: Held-back accuracy of the given network.
        train_s: Seconds of training.
    """

    name: str
    points: tuple[Point, ...]
    objectives: tuple[Objectives, ...]
    volume: float
    fp32: float
    train_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workload", default="bitfront.experiments.workloads:resnet20", help="module:attribute")
    parser.add_argument("--data", type=Path, help="folder of the published weights and images")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time limit of each search")
    parser.add_argument("--max-drop", type=float, default=FAST_DROP, help="accuracy that may be lost")
    parser.add_argument("--out", type=Path, default=Path("runs/joint-study"), help="folder for the run folders")
    parser.add_argument("options", nargs="*", help="further options of every search with pruning, after --")
    options = parser.parse_args(argv)
    try:
        for name, passes in SEARCHES.items():
            folder = options.out / _folder(name)
            if _finished(folder):
                sys.stdout.write(f"{folder} is finished and kept, whatever its options were\n")
            else:
                _search(options, name, passes)
        fronts = [_front(options.out / _folder(name), name, options.max_drop) for name in SEARCHES]
        _report(fronts, options.out)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _folder(name: str) -> str:
    return name.replace(" ", "-")


def _finished(folder: Path) -> bool:
    return (folder / "measurement.json").exists() and RunResults.load(folder).complete


def _search(options: argparse.Namespace, name: str, passes: Sequence[str]) -> None:
    command = ["--workload", options.workload, *(["--data", str(options.data)] if options.data else [])]
    command += ["--max-drop", str(options.max_drop), "--time-limit", f"{options.minutes:g}m", "--trials", "1000"]
    command += [*passes, *(options.options if "prune" in " ".join(passes) else ())]
    if "--passes" in command:
        command += ["--train-budget", f"{TRAIN_SHARE * options.minutes:g}"]
    folder = options.out / _folder(name)
    command += ["--out", str(folder), "--quiet", *(["--resume"] if folder.is_dir() and any(folder.iterdir()) else [])]
    sys.stdout.write(f"$ search {shlex.join(command)}\n")
    sys.stdout.flush()
    status = subprocess.run([sys.executable, "-m", "bitfront.search", *command], check=False).returncode
    if status not in (0, 3):
        raise BackendError(
            f"the search '{name}' ended with status {status}", "mend what its messages above name, and repeat the study"
        )


def _front(folder: Path, name: str, max_drop: float) -> Front:
    results = RunResults.load(folder)
    reference = results.base
    assert reference is not None
    assert reference.accuracy is not None
    measured = [
        p for p in results.points.values() if p.latency is not None and p.accuracy is not None and p.latency_reproduced
    ]
    objectives = [_objectives(point, reference) for point in measured]
    kept = pareto_front(objectives)
    corner = Objectives(accuracy=reference.accuracy.value - 2 * max_drop, latency_ms=1.0, size_bytes=1.0)
    return Front(
        name=name,
        points=tuple(measured[i] for i in kept),
        objectives=tuple(objectives[i] for i in kept),
        volume=hypervolume([objectives[i] for i in kept], corner),
        fp32=reference.accuracy.value,
        train_s=results.train.spent_s if results.train else 0.0,
    )


def _objectives(point: Point, reference: GivenNetwork) -> Objectives:
    """Latency and size as shares of the given network's."""
    assert point.latency is not None
    assert point.accuracy is not None
    return Objectives(
        accuracy=point.accuracy.value,
        latency_ms=point.latency.ratio,
        size_bytes=point.size_bytes / reference.size_bytes,
    )


def _report(fronts: Sequence[Front], out: Path) -> None:
    largest = fronts[-1].volume
    rows = []
    for front in fronts:
        rows.append(
            (
                front.name,
                str(len(front.points)),
                f"{front.volume:.5f}",
                f"{largest / front.volume:.2f}" if front.volume else "-",
                *(_least(front, axis, drop) for axis, drop in (("latency", 0.01), ("latency", FAST_DROP))),
                *(_least(front, axis, drop) for axis, drop in (("size", SMALL_DROP), ("size", FAST_DROP))),
                f"{front.train_s:.0f}",
            )
        )
    header = (
        *("search", "points", "hypervolume", "everything's over it"),
        *("least × latency at -1 pt", "at -2 pt", "least × size at -1 pt", "at -2 pt", "training s"),
    )
    sys.stdout.write(plain_table(header, rows) + "\n")
    everything = fronts[-1]
    for what, limit, drop in (("latency", FAST, FAST_DROP), ("size", SMALL, SMALL_DROP)):
        found = _least(everything, what, drop)
        met = found != "-" and float(found.split()[0]) <= limit
        sys.stdout.write(f"{what} ≤ {limit} × FP32 within {drop:.0%}: {'yes' if met else 'NO'}, {found}\n")
    write_text(out / "fronts.html", plot_page("Fronts", _plot(fronts)))


def _least(front: Front, axis: str, drop: float) -> str:
    """The least latency or size within a drop, with the point's id and accuracy."""
    found = [
        (o.latency_ms if axis == "latency" else o.size_bytes, point.id, o.accuracy)
        for point, o in zip(front.points, front.objectives, strict=True)
        if o.accuracy >= front.fp32 - drop - 1e-9
    ]
    if not found:
        return "-"
    least, name, accuracy = min(found)
    return f"{least:.3f} ({name}, {100 * (accuracy - front.fp32):+.2f})"


def _plot(fronts: Sequence[Front]) -> go.Figure:
    figure = make_subplots(cols=2, subplot_titles=("accuracy over latency", "accuracy over size"))
    colours = ("#6b7280", "#d97706", "#059669", "#2563eb")
    for front, colour in zip(fronts, colours, strict=True):
        for column, read in enumerate((_latency, _size), start=1):
            pairs = sorted((read(o), 100 * (o.accuracy - front.fp32), p.id) for p, o in _pairs(front))
            figure.add_scatter(
                x=[pair[0] for pair in pairs],
                y=[pair[1] for pair in pairs],
                text=[pair[2] for pair in pairs],
                mode="markers",
                marker={"color": colour, "size": 9},
                name=front.name,
                legendgroup=front.name,
                showlegend=column == 1,
                row=1,
                col=column,
            )
    figure.update_xaxes(title_text="× FP32's latency", col=1)
    figure.update_xaxes(title_text="× FP32's size", type="log", col=2)
    figure.update_yaxes(title_text="held-out accuracy, points from FP32")
    figure.update_layout(template="plotly_white", width=1200, height=520, legend={"orientation": "h", "y": -0.18})
    return figure


def _pairs(front: Front) -> list[tuple[Point, Objectives]]:
    return list(zip(front.points, front.objectives, strict=True))


def _latency(objectives: Objectives) -> float:
    return objectives.latency_ms


def _size(objectives: Objectives) -> float:
    return objectives.size_bytes


if __name__ == "__main__":
    sys.exit(main())
