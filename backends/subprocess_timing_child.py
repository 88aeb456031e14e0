"""The process that ``backends.subprocess_timing`` starts: reads a request, times, writes the result."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from bitfront.backends.registry import get_backend
from bitfront.backends.subprocess_timing import INPUTS_FILE, RESULT_FILE
from bitfront.backends.timing import TimingSettings, time_paired
from bitfront.core import BackendError, EngineError
from bitfront.core.artifact import load_artifact


def answer(request_file: Path) -> None:
    """Read the request, time its models, and write the result beside it.

    Raises:
        EngineError: Whatever the backend or the timing refuses.
    """
    request: dict[str, Any] = json.loads(request_file.read_text(encoding="utf-8"))
    with np.load(request_file.parent / INPUTS_FILE, allow_pickle=False) as archive:
        inputs = {name: archive[f"arr_{index}"] for index, name in enumerate(request["inputs"])}
    sys.path.append(request["beside"])
    backend = get_backend(request["backend"])
    threads = request["threads"]
    models = {}
    for name, path in request["models"]:
        try:
            models[name] = backend.compile(load_artifact(Path(path)), threads=threads, batch_size=request["batch_size"])
        except OSError as error:
            raise BackendError(
                f"model '{name}': cannot read '{path}': {error.strerror}",
                "repeat the run with --resume, which writes the file again",
            ) from error
        except BackendError as error:
            raise BackendError(f"model '{name}' ('{path}'): {error.message}", error.hint) from error
    stats = time_paired(
        models,
        request["reference"],
        inputs,
        TimingSettings.from_json(request["settings"]),
        threads=threads,
        batch_size=request["batch_size"],
        clock=backend.clock,
        processor_clock=backend.processor_clock,
    )
    result = {name: entry.to_json() for name, entry in stats.items()}
    (request_file.parent / RESULT_FILE).write_text(json.dumps(result), encoding="utf-8")


def main() -> int:
    """Entry point of the child; an error of ours is one message, not a traceback."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer(Path(sys.argv[1]))
    except EngineError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"its result cannot be written: {error}\n")
        return 2
    return 0


def _end_with_parent() -> None:
    """Exit when the parent has closed its end of standard input, which it does by ending; costs nothing till then."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
