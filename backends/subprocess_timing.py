"""Timing in a new process: nothing of the search's own heap, caches and thread pools is there to help or hurt.

The parent writes a request (JSON) and the inputs (``.npz``) into a temporary folder and runs
``subprocess_timing_child`` there, which writes ``result.json`` beside it. The child runs in that folder, so that
nothing in the user's current folder can shadow a module; a backend given as ``module:attribute`` is looked for there
last.

The child ends with its parent, however that ends: its standard input is a pipe that only the parent holds open, and it
exits when that is closed. An interruption of the parent ends it at once.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitfront.backends.timing import TimingSettings
from bitfront.core import BackendError, Inputs, LatencyStats, unwritable
from bitfront.core.temporary import temporary_folder

REQUEST_FILE = "request.json"
INPUTS_FILE = "inputs.npz"
RESULT_FILE = "result.json"

_TIMEOUT_S = 3600.0
_LAST_LINES = 5
_LEAST_BYTES = 4096  # with less, a child cannot even say what is wrong


def time_in_subprocess(
    backend: str,
    models: Mapping[str, Path],
    reference: str,
    inputs: Inputs,
    settings: TimingSettings,
    *,
    threads: int,
    batch_size: int,
) -> dict[str, LatencyStats]:
    """Time saved models against each other in a new process; arguments as for ``time_paired``.

    Args:
        backend: Its name in the registry.
        models: Name → file; the reference among them.
        reference: Name of the model that ratios are taken to.
        inputs: What every run gets.
        settings: How long and how closely.
        threads: Cores to use.
        batch_size: Samples in ``inputs``.

    Raises:
        BackendError: If the process fails; quotes its last lines.
        OutputError: If there is no room for the request or the result.
    """
    request = {
        "backend": backend,
        "beside": str(Path.cwd()),
        "models": [[name, str(path.resolve())] for name, path in models.items()],
        "reference": reference,
        "inputs": list(inputs),
        "settings": settings.to_json(),
        "threads": threads,
        "batch_size": batch_size,
    }
    with temporary_folder() as place:
        _write_request(place, request, inputs)
        _run_child(place)
        return _read_result(place, tuple(models))


def _write_request(place: Path, request: Mapping[str, Any], inputs: Inputs) -> None:
    try:
        (place / REQUEST_FILE).write_text(json.dumps(request), encoding="utf-8")
        # By position: an input may be called anything, an archive's keyword arguments may not.
        np.savez(place / INPUTS_FILE, *inputs.values())
    except OSError as error:
        raise unwritable(place, error) from error


def _read_result(place: Path, models: Sequence[str]) -> dict[str, LatencyStats]:
    try:
        result = json.loads((place / RESULT_FILE).read_text(encoding="utf-8"))
        return {name: LatencyStats.from_json(result[name]) for name in models}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendError(
            f"timing in a fresh process left no usable result: {error}",
            "free space for temporary files, and repeat the run with --resume",
        ) from error


def _run_child(place: Path) -> None:
    # The child runs in another folder: what was relative there would be found no more.
    inherited = [str(Path(part).resolve()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    out, err = place / "stdout", place / "stderr"
    try:
        with (
            out.open("wb") as stdout,
            err.open("wb") as stderr,
            subprocess.Popen(
                [sys.executable, "-m", "bitfront.backends.subprocess_timing_child", REQUEST_FILE],
                cwd=place,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(inherited)},
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
            ) as child,
        ):
            try:
                status = child.wait(_TIMEOUT_S)
            except BaseException:  # an interruption too
                child.kill()
                raise
        said = [path.read_text(encoding="utf-8", errors="replace").strip() for path in (err, out)]
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(
            f"timing in a fresh process failed: {error}",
            "free memory and processor time, and repeat the run with --resume",
        ) from error
    if status != 0 and not any(said) and shutil.disk_usage(place).free < _LEAST_BYTES:
        raise unwritable(place, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    if status != 0:
        lines = (said[0] or said[1] or "it said nothing").splitlines()[-_LAST_LINES:]
        raise BackendError(
            f"timing in a fresh process failed with status {status}: " + "\n".join(lines),
            "time the same files with 'search measure' to see whether it happens again",
        )
