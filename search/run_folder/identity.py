"""The identity of a run: it is resumed only with the network, data, machine and options it began with.

Budgets, that of training among them, preferences, the number of trials and the time limit may change: they decide
where a search goes and when it ends, not what was measured. A person's own code (metric, students, a backend) is known
by what it computes, not by its name (``search.run_folder.object_digest``); where that cannot be told, a run cannot be
resumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bitfront.core import (
    METRICS,
    Inputs,
    Labelled,
    Metric,
    OutputError,
    UsageError,
    Workload,
    as_metric,
    digest,
    write_text,
)
from bitfront.core.document import Form, JsonValue
from bitfront.core.metric import ComparedWith
from bitfront.core.naming import load_attribute
from bitfront.search.options import RunOptions
from bitfront.search.passes.options import PassOptions
from bitfront.search.run_folder.code_identity import UNTOLD, code_identity
from bitfront.search.run_folder.lock import LOCKING

RUN_FILE = "run.json"
# Raise it whenever the same run would be identified otherwise than before.
SCHEMA_VERSION = 2
_NO_RESULTS = LOCKING | {"cache"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFile(JsonValue):
    """The file ``run.json``: the run's identity, in words → value, and the name of its study."""

    schema_version: Literal[2]
    created: str
    study: str
    identity: dict[str, str]


RUN_FORM = Form(
    kind=RunFile,
    name="run",
    version=SCHEMA_VERSION,
    problem="is damaged",
    hint="start afresh with another --out",
    failure=UsageError,
    version_hint="resume with the version of this program that began the run, or start afresh with another --out",
    version_failure=UsageError,
)


def metric_identity(metric: Metric) -> str:
    """The name of a built-in metric, else name and digest of its function, with what only its value declares.

    Args:
        metric: The run's.
    """
    if METRICS.get(metric.name) is metric:
        return metric.name
    name = as_metric(metric.compute).name
    identity = code_identity(metric.compute, name)
    if metric == as_metric(metric.compute):
        return identity  # whatever it declares are attributes of the function
    declared = (metric.name, metric.direction, metric.unit, metric.bounds, metric.outputs_are, metric.per_sample)
    compared = f" {metric.compared_with}" if metric.compared_with is not ComparedWith.LABELS else ""
    return f"{identity} {declared!r}{compared}"


def identify(workload: Workload, fingerprint: str, device: Mapping[str, Any], options: RunOptions) -> dict[str, str]:
    """The run's identity: everything that decides its measurements, in words → value.

    Args:
        workload: Its data and metric; with passes also what they train with, as ``search.inputs.loading`` loads it.
        fingerprint: The network's.
        device: The backend's fingerprint as JSON.
        options: The run's; those that decide no measurement are left out.
    """
    identity = {
        "the network": fingerprint,
        "the calibration data": digest(dict(workload.calibration)),
        "the evaluation data": digest(dict(workload.evaluation.inputs), workload.evaluation.labels),
        "the metric": metric_identity(as_metric(workload.metric)),
        "the device": json.dumps(device, sort_keys=True),
        "--backend": options.backend,
        "--precisions": ",".join(sorted(precision.value for precision in options.precisions)),
        "--threads": str(options.threads),
        "--batch-size": str(options.batch_size),
        "--seed": str(options.seed),
        "--holdout": f"{options.holdout:g}",
        "--sensitivity-samples": str(options.sensitivity_samples),
        "the calibration settings": json.dumps(options.calibration.to_json(), sort_keys=True),
    }
    if told := getattr(workload, "batch_axes", ()):
        identity["--batch-axis"] = " ".join(f"{name}={'none' if axis is None else axis}" for name, axis in sorted(told))
    if (recurrence := getattr(workload, "recurrence", None)) is not None:
        identity["--state"] = " ".join(f"{output}={name}" for output, name in sorted(recurrence.state.items()))
    if ":" in options.backend:
        identity["the backend's code"] = code_identity(load_attribute(options.backend, "--backend"), options.backend)
    return identity if options.passes is None else identity | _identify_passes(workload, options.passes)


def holds_results(folder: Path) -> bool:
    """Whether a folder holds more than a cache, which is what a run leaves that was refused early, and does no harm.

    Raises:
        OutputError: If it cannot be read.
    """
    try:
        return folder.is_dir() and any(entry.name not in _NO_RESULTS for entry in folder.iterdir())
    except OSError as error:
        raise OutputError(
            f"--out: cannot read folder '{folder}': {error.strerror or error}", "choose another folder with --out"
        ) from error


def check_folder(folder: Path, identity: Mapping[str, str], *, resume: bool) -> Mapping[str, Any] | None:
    """Whether a run may work in ``folder``.

    Returns:
        The earlier run's ``run.json``, None for a fresh start.

    Raises:
        UsageError: If ``folder`` holds something and is not resumed, or holds a run of something else.
    """
    path = folder / RUN_FILE
    if not resume and holds_results(folder):
        raise UsageError(
            f"--out: folder '{folder}' already holds files", "give another --out, or --resume to continue its run"
        )
    if not resume or not holds_results(folder):
        return None
    if not path.exists():
        raise UsageError(
            f"--resume: there is no run in '{folder}': '{path}' is missing", "start afresh with another --out"
        )
    earlier = RUN_FORM.load(path)
    recorded = earlier.identity
    differing = [name for name in {**identity, **recorded} if recorded.get(name) != identity.get(name)]
    for name in differing:
        if UNTOLD in (now := identity.get(name, "")):
            raise UsageError(
                f"--resume: whether {name} is what the run in '{folder}' began with cannot be told: "
                f"{now.partition(UNTOLD)[2]}",
                "start afresh with another --out; what consists of code, numbers, arrays and containers can be resumed",
            )
    if differing:
        was, now_is = ({name: found.get(name, "none") for name in differing} for found in (recorded, identity))
        shown = [f"{name} (was {was[name]}, is {now_is[name]})" for name in differing if name[0] == "-"]
        named = [name for name in differing if name[0] != "-"]
        raise UsageError(
            f"--resume: the run in '{folder}' was about something else; different: {', '.join([*named, *shown])}",
            "repeat the run's own command with --resume, or start afresh with another --out",
        )
    return {"study": earlier.study, "created": earlier.created}


def write_run(folder: Path, identity: Mapping[str, str], *, study: str, created: str) -> None:
    """Write ``run.json``.

    Raises:
        OutputError: If it cannot be written.
    """
    data = {"schema_version": SCHEMA_VERSION, "created": created, "study": study, "identity": dict(identity)}
    write_text(folder / RUN_FILE, json.dumps(data, indent=1) + "\n")


def _identify_passes(workload: Workload, passes: PassOptions) -> dict[str, str]:
    training: Labelled | Inputs = getattr(workload, "training")  # noqa: B009 - not in the protocol
    students = getattr(workload, "students", {})
    inputs, labels = (training.inputs, training.labels) if isinstance(training, Labelled) else (training, None)
    return {
        "the training data": digest(dict(inputs), labels),
        "the students or their first weights": code_identity(dict(students), "students"),
        "the augmentation": json.dumps(getattr(workload, "augment", {}), sort_keys=True),
        **passes.identity(),
    }
