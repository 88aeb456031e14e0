"""Peak memory, disk and time of the commands on generated networks of given size.

    python -m bitfront.experiments.memory_study --megabytes 100 437 1000
    python -m bitfront.experiments.memory_study --megabytes 437 3000 --external
    python -m bitfront.experiments.memory_study --network head --megabytes 17 --command sensitivity --samples 128
    python -m bitfront.experiments.memory_study --network decoder --megabytes 3000 --external --command search

An encoder has a table of 30,522 × 768 and feed-forward blocks of 768 → 3,072 → 768; a decoder has a table of 16,000 ×
4,096, blocks of causal attention and of 4,096 → 16,384 → 4,096, and a head of 16,000 classes; ``head`` is a decoder of
width 64 with 32,000 classes. Blocks are as many as the size asks for. Each command runs in a process of its own, which
is looked at ten times a second, with those that it starts. Resident memory is told apart: *mapped* pages are those of
files, which the system can drop at any time; *own* is the rest. ``search`` ends with ``search apply`` of its INT8
point, whose bytes are compared with those it was saved as.
"""

from __future__ import annotations

import argparse
import filecmp
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from bitfront.core.temporary import temporary_folder
from bitfront.experiments.networks import large
from bitfront.search.console.tables import plain_table

COLUMNS = ("network", "command", "file", "peak memory", "× file", "own", "mapped", "disk", "time", "processor time")
NETWORKS: dict[str, Callable[[float], large.Graph]] = {
    "encoder": large.encoder,
    "decoder": large.decoder,
    "head": partial(large.decoder, width=64, inner=256, heads=4, vocabulary=32_000),
}
_SMALLEST_VOCABULARY = 16_000
_LENGTH = 16
_POINT = "int8"
_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Highest values seen of a command with what it starts, in bytes, and its duration.

    Attributes:
        resident: Resident memory.
        own: The part of it that is no file's.
        mapped: The part of it that is files' pages; the three need not have been at one time.
        disk: Growth of what is used on the disk of temporary files, by whomever.
        seconds: Wall-clock time.
        cpu_seconds: Processor time, which a machine that others use lengthens less.
    """

    resident: int
    own: int
    mapped: int
    disk: int
    seconds: float
    cpu_seconds: float

    @property
    def memory(self) -> tuple[int, int, int, int]:
        """Resident, own and mapped memory and disk, in bytes."""
        return self.resident, self.own, self.mapped, self.disk


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--network", choices=NETWORKS, default="encoder", help="what is generated")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 437], help="sizes of the networks")
    parser.add_argument("--external", action="store_true", help="weights in a file beside the model")
    parser.add_argument("--command", choices=("inspect", "sensitivity", "search"), default="inspect")
    parser.add_argument("--precisions", default="int8", help="of sensitivity and search")
    parser.add_argument("--samples", type=int, default=2, help="of each sensitivity score")
    parser.add_argument("--trials", type=int, default=4, help="of search")
    options = parser.parse_args(argv)
    rows = []
    for megabytes in options.megabytes:
        with temporary_folder() as folder:
            path = folder / "net.onnx"
            graph = NETWORKS[options.network](megabytes)
            large.save(graph, path, external=options.external, length=None if options.network == "encoder" else _LENGTH)
            size = sum(file.stat().st_size for file in folder.glob("net.*"))
            for name, count in (("calib", max(8, options.samples)), ("eval", 16)):
                generator = np.random.default_rng(count)
                ids = generator.integers(0, _SMALLEST_VOCABULARY, (count, _LENGTH))
                np.savez(folder / f"{name}.npz", ids=ids)
            name = f"{options.network}, {len(graph.weights)} weights"
            for command, arguments in _commands(options, folder):
                peaks = watched([sys.executable, "-m", "bitfront.search", *arguments], folder / f"{command}.txt")
                sizes = [f"{value / 1e6:,.0f} MB" for value in (size, *peaks.memory)]
                sizes.insert(2, f"{peaks.resident / size:.2f}")
                rows.append((name, command, *sizes, f"{peaks.seconds:.1f} s", f"{peaks.cpu_seconds:.1f} s"))
                sys.stdout.write(plain_table(COLUMNS, rows[-1:]) + "\n")
                sys.stdout.flush()
            if options.command == "search":
                saved = folder / "run" / "models" / f"{_POINT}.onnx"  # names its weights by their digest
                same = filecmp.cmp(folder / "again.onnx", saved, shallow=False)
                sys.stdout.write(f"search apply wrote {'the same bytes' if same else 'OTHER BYTES'}\n")
    sys.stdout.write("\n" + plain_table(COLUMNS, rows) + "\n")
    return 0


def watched(command: Sequence[str], output: Path) -> Peaks:
    """Run a command to its end and note what it takes.

    Args:
        command: With its arguments.
        output: File for what it prints.

    Raises:
        CalledProcessError: If it fails; what it printed goes to standard error.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start, disk_before = time.perf_counter(), shutil.disk_usage(output.parent).used
    resident = own = mapped = disk = 0
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None:
            found = _memory(process.pid)
            resident, own = max(resident, sum(found)), max(own, found[0])
            mapped = max(mapped, found[1])
            disk = max(disk, shutil.disk_usage(output.parent).used - disk_before)
            time.sleep(_INTERVAL_S)
    if process.returncode not in (0, 3):  # 3: no point is within the limits
        sys.stderr.write(output.read_text(encoding="utf-8", errors="replace"))
        raise subprocess.CalledProcessError(process.returncode, list(command))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Peaks(
        resident=resident,
        own=own,
        mapped=mapped,
        disk=disk,
        seconds=time.perf_counter() - start,
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )


def _memory(pid: int) -> tuple[int, int]:
    """A process's own resident bytes and those of mapped files, with what it started."""
    own = mapped = 0
    try:
        top = psutil.Process(pid)
        family = [top, *top.children(recursive=True)]
    except psutil.Error:
        return 0, 0  # it has just ended
    for process in family:
        try:
            found = process.memory_info()
        except psutil.Error:
            continue
        own, mapped = own + found.rss - found.shared, mapped + found.shared
    return own, mapped


def _commands(options: argparse.Namespace, folder: Path) -> list[tuple[str, list[str]]]:
    """Name and arguments of each command, in order."""
    model, calibration = ["--model", str(folder / "net.onnx")], ["--calib", str(folder / "calib.npz")]
    scoring = ["--precisions", options.precisions, "--sensitivity-samples", str(options.samples)]
    if options.command == "inspect":
        return [("inspect", ["inspect", str(folder / "net.onnx")])]
    if options.command == "sensitivity":
        return [("sensitivity", ["sensitivity", *model, *calibration, *scoring])]
    config = folder / "run" / "configs" / f"{_POINT}.json"
    run = ["--eval", str(folder / "eval.npz"), "--trials", str(options.trials), "--max-drop", "0.5"]
    return [
        ("search", [*model, *calibration, *scoring, *run, "--out", str(folder / "run")]),
        ("apply", ["apply", str(config), *model, *calibration, "-o", str(folder / "again.onnx")]),
    ]


if __name__ == "__main__":
    sys.exit(main())
