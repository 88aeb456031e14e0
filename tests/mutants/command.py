"""``scripts/mutants``: plants each bug of the list in a copy of the tree and runs the tests that have to notice it.

    tree ─► copy ─► its tests pass ─► for each mutant: plant, run its tests (first failure ends it), put back

A mutant is *killed* where a test fails or does not end in time, and *survives* where all pass. It is *stale* where its
text is no longer in the file exactly once, and *broken* where pytest can't run: the change is no valid Python then, or
the tests are gone. Exit status 0 when all are killed, 1 otherwise, 2 when the tests fail without any bug.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.mutants.catalogue import Mutant, load, selected

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = (".git", ".venv*", "__pycache__", "*.egg-info", "build", "dist", "runs", "shared", ".*_cache", ".hypothesis")
_PASSED, _FAILED = 0, 1  # pytest's exit statuses


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    STALE = "STALE"
    BROKEN = "BROKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One mutant's fate, how long its tests took in seconds, and the test that failed or what was wrong."""

    mutant: Mutant
    fate: Fate
    seconds: float
    detail: str


class Copy:
    """A copy of the tree in which bugs are planted one at a time.

    Args:
        folder: Where it is made; not there yet.
        root: The tree.
    """

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        shutil.copytree(root, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
        self._folder = folder
        data = os.environ.get("BITFRONT_DATA", str(root.parent / "shared" / "data"))
        # Modules come from the copy, not from where the environment's links point. No byte code is written: a file that
        # changes back within a second and has the same length would be taken for unchanged.
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "BITFRONT_DATA": data,
        }

    def test(self, tests: Iterable[str], timeout_s: float) -> tuple[int | None, str]:
        """Run tests up to the first failure; pytest's exit status, None after ``timeout_s``, and what it printed."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
        try:
            done = subprocess.run(
                command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None, ""
        return done.returncode, done.stdout

    def try_out(self, mutant: Mutant, timeout_s: float) -> Verdict:
        """Plant a bug, run its tests, put the file back."""
        path = self._folder / mutant.file
        started = time.monotonic()

        def verdict(fate: Fate, detail: str) -> Verdict:
            return Verdict(mutant=mutant, fate=fate, seconds=time.monotonic() - started, detail=detail)

        try:
            source = path.read_text(encoding="utf-8")
            planted = mutant.planted(source)
        except (OSError, ValueError) as error:
            return verdict(Fate.STALE, str(error))
        path.write_text(planted, encoding="utf-8")
        try:
            status, output = self.test(mutant.tests, timeout_s)
        finally:
            path.write_text(source, encoding="utf-8")
        if status is None:
            return verdict(Fate.KILLED, f"no end after {timeout_s:.0f} s")
        if status == _PASSED:
            return verdict(Fate.SURVIVED, mutant.stands_for)
        if status == _FAILED:
            return verdict(Fate.KILLED, _first_failure(output))
        return verdict(Fate.BROKEN, f"pytest ended with status {status}: {_last_line(output)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/mutants", description="Plant known bugs one at a time; each must make a test fail."
    )
    parser.add_argument("words", nargs="*", help="only mutants whose name or file contains one of these")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="S", help="seconds a mutant (default 300)")
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests without a bug first")
    args = parser.parse_args(argv)
    mutants = selected(load(), args.words)
    if args.list or not mutants:
        print("\n".join(f"{m.name}: {m.stands_for} ({m.file})" for m in mutants) or "no mutant has such a name or file")
        return 0 if mutants else 2
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder) / "tree")
        if not args.unchecked:
            tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
            status, output = copy.test(tests, args.timeout * len(tests))
            if status != _PASSED:
                print(f"{output}\nwithout any planted bug the tests do not pass: nothing was tried")
                return 2
        fates = [_reported(copy.try_out(mutant, args.timeout)) for mutant in mutants]
    counts = Counter(fates)
    print(f"{len(fates)} mutants: " + ", ".join(f"{counts[fate]} {fate.value}" for fate in Fate if counts[fate]))
    return 0 if counts[Fate.KILLED] == len(fates) else 1


def _reported(verdict: Verdict) -> Fate:
    print(f"{verdict.fate.value:8}  {verdict.seconds:5.1f} s  {verdict.mutant.name}: {verdict.detail}", flush=True)
    return verdict.fate


def _first_failure(output: str) -> str:
    failed = [line.split(" ", 1)[1] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].partition(" - ")[0] if failed else _last_line(output)


def _last_line(output: str) -> str:
    return (output.strip().splitlines() or ["it said nothing"])[-1]


if __name__ == "__main__":
    sys.exit(main())
