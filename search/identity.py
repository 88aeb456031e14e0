"""What a run folder belongs to: a run is resumed only with the network, data, machine and options it began with.

Budgets, that of training among them, the number of trials and the time limit may change: they decide where a search
goes and when it ends, not what was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from precision import Inputs, Labelled, Metric, UsageError, Workload, digest, top1, write_text
from search.options import PassOptions, RunOptions

RUN_FILE = "run.json"
SCHEMA_VERSION = 1


def metric_name(metric: Metric) -> str:
    """``top1`` for the built-in metric, else ``module:function``."""
    if metric is top1:
        return "top1"
    owner = metric if hasattr(metric, "__qualname__") else type(metric)
    return f"{owner.__module__}:{owner.__qualname__}"


def identify(workload: Workload, fingerprint: str, device: Mapping[str, Any], options: RunOptions) -> dict[str, str]:
    """What decides a run's measurements, in words → value.

    Args:
        workload: Its data and metric; with passes also what they train with, as ``search.inputs.loading`` loads it.
        fingerprint: The network's.
        device: The backend's fingerprint as JSON.
        options: Those that matter are picked out.
    """
    identity = {
        "the network": fingerprint,
        "the calibration data": digest(dict(workload.calibration)),
        "the evaluation data": digest(dict(workload.evaluation.inputs), workload.evaluation.labels),
        "the metric": metric_name(workload.metric),
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
    # A run without passes has the identity it had before there were any.
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
    if not resume or not path.exists():
        return None
    try:
        earlier: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        recorded: Mapping[str, str] = earlier["identity"]
        study, created = earlier["study"], earlier["created"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--resume: '{path}' is damaged: {type(error).__name__}: {error}", "start afresh with another --out"
        ) from error
    differing = [name for name in {**identity, **recorded} if recorded.get(name) != identity.get(name)]
    if differing:
        was, now = ({name: found.get(name, "none") for name in differing} for found in (recorded, identity))
        shown = [f"{name} (was {was[name]}, is {now[name]})" for name in differing if name[0] == "-"]
        named = [name for name in differing if name[0] != "-"]
        raise UsageError(
            f"--resume: the run in '{folder}' was about something else; different: {', '.join([*named, *shown])}",
            "repeat the run's own command with --resume, or start afresh with another --out",
        )
    return {"study": str(study), "created": str(created)}


def write_run(folder: Path, identity: Mapping[str, str], *, study: str, created: str) -> None:
    """Write ``run.json``.

    Raises:
        OutputError: If it cannot be written.
    """
    data = {"schema_version": SCHEMA_VERSION, "created": created, "study": study, "identity": dict(identity)}
    write_text(folder / RUN_FILE, json.dumps(data, indent=1) + "\n")


def _identify_passes(workload: Workload, passes: PassOptions) -> dict[str, str]:
    training: Labelled | Inputs = getattr(workload, "training")  # noqa: B009 - not in the protocol
    students = {
        name: [repr(student), {key: tensor.cpu().float().numpy() for key, tensor in student.state_dict().items()}]
        for name, student in getattr(workload, "students", {}).items()
    }
    inputs, labels = (training.inputs, training.labels) if isinstance(training, Labelled) else (training, None)
    return {
        "the training data": digest(dict(inputs), labels),
        "the students or their first weights": digest(students),
        "the augmentation": json.dumps(getattr(workload, "augment", {}), sort_keys=True),
        "--passes": passes.names,
        "--sparsities": ",".join(f"{level:g}" for level in passes.sparsities),
        "--round-to": "auto" if passes.round_to is None else str(passes.round_to),
        "--importance": passes.importance,
        "--sparse-weights": ",".join(pattern.text for pattern in passes.sparse_weights),
    }
