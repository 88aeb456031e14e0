"""``scripts/mutants``: plants each bug of the list in a copy of the tree and runs the tests that have to notice it.

    tree ─► copy ─► its tests pass ─► for each mutant: plant, run its tests (first failure ends it), put back

A mutant is *killed* where a test fails or does not end in time, and *survives* where all pass. It is *stale* where its
text is no longer in the file exactly once, and *broken* where pytest can't run: the change is no valid Python then, or
the tests are gone. Exit status 0 when all are killed, 1 otherwise, 2 when the tests fail without any bug.
"""

from __future__ import annotations

import argparse
import compileall
import multiprocessing
import os
import py_compile
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from tests.mutants.catalogue import Mutant, load, selected

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = (".git", ".venv*", "__pycache__", "*.egg-info", "build", "dist", "runs", "shared", ".*_cache", ".hypothesis")
LIBRARIES = ("onnx", "onnxruntime", "torch", "pandas", "optuna", "plotly", "scipy.optimize")  # none of pytest's
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

    Tests run in processes forked from one that has imported the libraries already: those take longer to import than
    most of the tests take to run.

    Args:
        folder: Where it is made; not there yet.
        root: The tree.
    """

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        shutil.copytree(root, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
        # The installed package's finder knows the tree alone; in the copy the rooms are found inside their package.
        for room in folder.glob("*/__init__.py"):
            if room.parent.name not in ("bitfront", "tests"):
                (folder / "bitfront" / room.parent.name).symlink_to(Path("..") / room.parent.name)
        # By the sources' content: a file that changes back within a second and has the same length is another one.
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(folder, quiet=2, invalidation_mode=mode)
        self._folder = folder
        self._root = root
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(LIBRARIES))

    def test(self, tests: Iterable[str], timeout_s: float) -> tuple[int | None, str]:
        """Run tests up to the first failure; pytest's exit status, None after ``timeout_s``, and what it printed."""
        with tempfile.TemporaryDirectory(prefix="mutant-") as place:
            log = Path(place) / "log"
            arguments = (str(self._folder), str(self._root), str(log), list(tests))
            process = self._context.Process(target=_run_pytest, args=arguments, daemon=True)  # ends with this one
            process.start()
            process.join(timeout_s)
            ended = process.exitcode is not None
            if not ended:
                process.kill()
                process.join()
            output = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
            return (process.exitcode if ended else None), output

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
        failure = _first_failure(output)
        if status == _FAILED and failure:
            return verdict(Fate.KILLED, failure)
        return verdict(Fate.BROKEN, f"pytest ended with status {status}: {_last_line(output)}")


def _run_pytest(folder: str, root: str, log: str, tests: list[str]) -> None:
    """In a process of its own: pytest in the copy, with modules of the copy alone."""
    with Path(log).open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", errors="replace") for number in (1, 2))
    os.chdir(folder)
    os.environ["PYTHONPATH"] = folder  # for processes that tests start
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    sys.path[:] = [folder, *(entry for entry in sys.path if entry not in ("", root, folder))]
    for name, module in list(sys.modules.items()):
        # What the parent imported of the tree itself, this module included, is not the copy's.
        place = getattr(module, "__file__", None) or ""
        if place.startswith(root + os.sep) and f"{os.sep}.venv" not in place:
            del sys.modules[name]

    import pytest

    sys.exit(pytest.main(["-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests]))


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running or lying about
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("BITFRONT_DATA", str(ROOT.parent / "shared" / "data"))
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder) / "tree")
        if not args.unchecked:
            tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
            status, output = copy.test(tests, args.timeout * len(tests))
            if status != _PASSED:
                print(f"{output}\nwithout any planted bug the tests do not pass: nothing was tried")
                return 2
            canary = replace(mutants[0], text="from __future__", becomes="raise SystemError\nfrom __future__")
            if copy.try_out(canary, args.timeout).fate is Fate.SURVIVED:
                print(f"{canary.file} can be broken without its tests failing: they do not run the copy")
                return 2
        fates = [_reported(copy.try_out(mutant, args.timeout)) for mutant in mutants]
    counts = Counter(fates)
    print(f"{len(fates)} mutants: " + ", ".join(f"{counts[fate]} {fate.value}" for fate in Fate if counts[fate]))
    return 0 if counts[Fate.KILLED] == len(fates) else 1


def _reported(verdict: Verdict) -> Fate:
    print(f"{verdict.fate.value:8}  {verdict.seconds:5.1f} s  {verdict.mutant.name}: {verdict.detail}", flush=True)
    return verdict.fate


def _first_failure(output: str) -> str:
    """Name of the first test that failed, or whose fixtures did; empty where pytest names none."""
    failed = [line.split(" ", 1)[1] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].partition(" - ")[0] if failed else ""


def _last_line(output: str) -> str:
    return (output.strip().splitlines() or ["it said nothing"])[-1]


if __name__ == "__main__":
    sys.exit(main())
