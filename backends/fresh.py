"""Timing in a fresh process: nothing of the search's own heap, caches and thread pools is there to help or hurt.

The parent writes a request (JSON) and the inputs (``.npz``) into a temporary folder and runs
``python -m backends.fresh_child request.json`` there, which writes ``result.json`` beside it. The child runs in
that folder, so that nothing in the user's current folder can shadow a module; a backend given as ``module:attribute``
is looked for there last.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import backends
from backends.timing import TimingSettings
from precision import BackendError, Inputs, LatencyStats

REQUEST_FILE = "request.json"
INPUTS_FILE = "inputs.npz"
RESULT_FILE = "result.json"

_TIMEOUT_S = 3600.0
_LAST_LINES = 5


def time_in_fresh_process(
    backend: str,
    models: Mapping[str, Path],
    reference: str,
    inputs: Inputs,
    settings: TimingSettings,
    *,
    threads: int,
    batch_size: int,
) -> dict[str, LatencyStats]:
    """Time saved models against each other in a process of their own; arguments as for ``time_paired``.

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
    """
    with TemporaryDirectory(prefix="bitfront-") as folder:
        place = Path(folder)
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
        (place / REQUEST_FILE).write_text(json.dumps(request), encoding="utf-8")
        # By position: an input may be called anything, an archive's keyword arguments may not.
        np.savez(place / INPUTS_FILE, *inputs.values())
        _run_child(place)
        try:
            result = json.loads((place / RESULT_FILE).read_text(encoding="utf-8"))
            return {name: LatencyStats.from_json(result[name]) for name in models}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackendError(
                f"timing in a fresh process left no usable result: {error}",
                "free space for temporary files, and repeat the run with --resume",
            ) from error


def _run_child(place: Path) -> None:
    # The packages are found from wherever this one was, be it installed or a checkout.
    home = str(Path(backends.__file__).resolve().parent.parent)
    inherited = [str(Path(part).resolve()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    try:
        child = subprocess.run(
            [sys.executable, "-m", "backends.fresh_child", REQUEST_FILE],
            cwd=place,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([home, *inherited])},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(
            f"timing in a fresh process failed: {error}",
            "free memory and processor time, and repeat the run with --resume",
        ) from error
    if child.returncode != 0:
        lines = (child.stderr.strip() or child.stdout.strip() or "it said nothing").splitlines()[-_LAST_LINES:]
        raise BackendError(
            f"timing in a fresh process failed with status {child.returncode}: " + "\n".join(lines),
            "time the same files with 'search measure' to see whether it happens again",
        )
