"""The main job on a real network, run as a user would, with everything it promises checked afterwards.

    python -m bitfront.experiments.search_study --workload bitfront.experiments.workloads:resnet20 --data ../shared/data

Two searches: one for latency within ``--max-drop 0.01``, one with a size budget of 0.20 × FP32 as well. Of each:
the recommended point on the held-out data, the front timed once more in a further process, every saved model rebuilt
from its config, and where the wall clock went.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitfront.backends import THOROUGH, time_in_subprocess
from bitfront.core import BYTES_PER_MB, EngineError
from bitfront.search.cli import main as search
from bitfront.search.console.tables import plain_table
from bitfront.search.inputs.workloads import load_workload

MAX_DROP = 0.01
SIZE_SHARE = 0.20
HELD = 0.05
PRODUCTIVE = ("inference", "compilation", "solver", "calibration")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status: 0 where everything promised holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workload", default="bitfront.experiments.workloads:resnet20", help="module:attribute")
    parser.add_argument("--data", type=Path, help="folder of the published weights and images")
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--out", type=Path, help="folder for the run folders (default: a temporary one)")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            return _study(options, options.out or Path(temporary))
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _study(options: argparse.Namespace, out: Path) -> int:
    common = ["--workload", options.workload, "--max-drop", str(MAX_DROP), "--trials", str(options.trials), "--quiet"]
    common += ["--data", str(options.data)] if options.data else []
    fast = _run([*common, "--out", str(out / "fast")])
    limit = SIZE_SHARE * fast["points"]["fp32"]["size_bytes"] / BYTES_PER_MB
    small = _run([*common, "--out", str(out / "small"), "--budget-mb", f"{limit:.6f}"])
    promises = [
        *_check(options, fast, out / "fast", "latency ≤ 0.55 × FP32", lambda p, _: p["latency"]["ratio"] <= 0.55),
        *_check(
            options, small, out / "small", "size ≤ 0.20 × FP32", lambda p, r: p["size_bytes"] <= 0.2 * r["size_bytes"]
        ),
    ]
    sys.stdout.write(plain_table(("promise", "kept", "found"), promises) + "\n")
    return 0 if all(kept == "yes" for _, kept, _ in promises) else 1


def _run(argv: list[str]) -> dict[str, Any]:
    sys.stdout.write(f"$ search {shlex.join(argv)}\n")
    status = search(argv)
    if status != 0:
        raise EngineError(
            f"the search ended with status {status}", "mend what its messages above name, and repeat the study"
        )
    folder = Path(argv[argv.index("--out") + 1])
    found: dict[str, Any] = json.loads((folder / "measurement.json").read_text(encoding="utf-8"))
    return found


def _check(
    options: argparse.Namespace, result: dict[str, Any], folder: Path, goal: str, reached: Any
) -> list[tuple[str, str, str]]:
    points, name = result["points"], folder.name
    reference, chosen = result["given"], points[result["recommended"]]
    drop = reference["accuracy"]["value"] - chosen["accuracy"]["value"]
    split = result["time_split_s"]
    share = sum(split[kind] for kind in PRODUCTIVE) / split["total"]
    ratio, size = chosen["latency"]["ratio"], chosen["size_bytes"] / reference["size_bytes"]
    worst, where = _timed_again(options, result, folder)
    configured = [identifier for identifier in points if points[identifier]["config"]]
    rebuilt = [identifier for identifier in configured if _rebuilds(options, folder, points[identifier])]
    rows = [
        (
            f"{name}: recommended, {goal}",
            reached(chosen, reference),
            f"{chosen['id']}: {ratio:.3f} ×, size {size:.3f} ×",
        ),
        (f"{name}: drop on held-out data ≤ {MAX_DROP}", drop <= MAX_DROP + 1e-9, f"{drop:+.4f}"),
        (f"{name}: front holds its latency within 5 % in another process", worst <= HELD, f"{worst:.1%} ({where})"),
        (
            f"{name}: configs rebuild their models byte for byte",
            len(rebuilt) == len(configured),
            f"{len(rebuilt)}/{len(configured)}",
        ),
        (f"{name}: ≥ 90 % of the time in runtime, solver, calibration", share >= 0.9, f"{share:.1%}"),
    ]
    sys.stdout.write(", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in split.items()) + "\n")
    return [(promise, "yes" if kept else "NO", found) for promise, kept, found in rows]


def _timed_again(options: argparse.Namespace, result: dict[str, Any], folder: Path) -> tuple[float, str]:
    """The largest change of a front point's ratio in one more process, and which point it is."""
    points, settings, reference = result["points"], result["settings"], result["reference"]
    workload = load_workload(options.workload, options.data)
    batch = settings["batch_size"]
    again = time_in_subprocess(
        result["backend"]["name"],
        {identifier: folder / points[identifier]["model"] for identifier in {reference, *result["front"]}},
        reference,
        {name: array[:batch] for name, array in workload.calibration.items()},
        THOROUGH,
        threads=settings["threads"],
        batch_size=batch,
    )
    changes = {
        identifier: abs(again[identifier].ratio / points[identifier]["latency"]["ratio"] - 1)
        for identifier in result["front"]
    }
    where = max(changes, key=lambda identifier: changes[identifier])
    return changes[where], where


def _rebuilds(options: argparse.Namespace, folder: Path, point: dict[str, Any]) -> bool:
    with tempfile.TemporaryDirectory() as temporary:
        again = Path(temporary) / "again.onnx"
        argv = ["apply", str(folder / point["config"]), "--workload", options.workload, "-o", str(again)]
        argv += ["--data", str(options.data)] if options.data else []
        return search(argv) == 0 and again.read_bytes() == (folder / point["model"]).read_bytes()


if __name__ == "__main__":
    sys.exit(main())
