"""The run folder: the next free one or the one to resume, and whether it can be written."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

from bitfront.core import OutputError, UsageError
from bitfront.core.backends_file import BACKENDS_FILE
from bitfront.search.run_folder.identity import RUN_FILE, holds_results

RUNS = Path("runs")


def choose_run_folder(out: Path | None, name: str, *, resume: bool) -> Path:
    """The run folder: ``out``; else the latest ``runs/<name>-<n>`` to resume; else the next free one.

    Raises:
        UsageError: If there is nothing to resume, or ``out`` already holds something and is not resumed.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
    if out is not None:
        filled = holds_results(out)
        if resume and not filled:
            raise UsageError(f"--resume: there is no run in '{out}'", "leave --resume out to start one there")
        if filled and not resume:
            raise UsageError(
                f"--out: '{out}' is not empty", "add --resume to continue the run in it, or choose another folder"
            )
        return out
    numbers = [int(path.name.rpartition("-")[2]) for path in RUNS.glob(f"{slug}-*") if _numbered(path, slug)]
    if resume:
        if not numbers:
            raise UsageError(f"--resume: there is no run '{RUNS / slug}-<n>' to resume", "name its folder with --out")
        return RUNS / f"{slug}-{max(numbers)}"
    return RUNS / f"{slug}-{max(numbers, default=0) + 1}"


def check_kind(folder: Path, *, backends: int) -> None:
    """Refuse to resume the run of one backend as if it were one of several, and the other way round.

    Raises:
        UsageError: If the folder is of the other kind.
    """
    if backends > 1 and (folder / RUN_FILE).exists():
        raise UsageError(
            f"--resume: the run in '{folder}' is on one backend, and --backend names {backends}",
            "resume it with its own backend, or give another --out",
        )
    if backends == 1 and (folder / BACKENDS_FILE).exists():
        raise UsageError(
            f"--resume: the run in '{folder}' is on several backends, and --backend names one",
            "repeat its own --backend, or give another --out",
        )


def check_writable(folder: Path) -> None:
    """Prove that ``folder`` can be written, before hours are spent on what goes there; leaves no trace.

    Raises:
        OutputError: If it cannot.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"--out: cannot write to folder '{folder}': {error.strerror or error}", "choose another folder with --out"
        ) from error
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def _numbered(path: Path, slug: str) -> bool:
    return path.is_dir() and re.fullmatch(re.escape(slug) + r"-\d+", path.name) is not None
