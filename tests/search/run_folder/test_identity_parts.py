"""A run is resumed only as what it was: each part of it is changed alone, and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfront.core import Array, CalibrationSettings, Constraints, Labelled, Precision, RangeMethod, UsageError
from bitfront.search.options import RunOptions
from bitfront.search.run_folder.identity import check_folder, identify, write_run
from tests.search import toy
from tests.search.toy_runs import elsewhere, options, search

# Fixtures are found by name in the module.
__all__ = ["elsewhere"]

OPTIONS = RunOptions(budget=Constraints(), out=Path("run"))
WORK = toy.workload()
DEVICE = {"device": "toy", "cores": 2}


def halved(outputs: tuple[Array, ...], labels: Array) -> Array:
    """Another metric: half a hit."""
    return np.asarray(outputs[0].argmax(axis=1) == labels, dtype=np.float64) / 2


def identity(
    work: toy.ToyWorkload = WORK,
    fingerprint: str = "f" * 8,
    device: dict[str, Any] = DEVICE,
    asked: RunOptions = OPTIONS,
) -> dict[str, str]:
    return identify(work, fingerprint, device, asked)


def _evaluation(**changed: Any) -> toy.ToyWorkload:
    parts = {"inputs": WORK.evaluation.inputs, "labels": WORK.evaluation.labels, **changed}
    return replace(WORK, evaluation=Labelled(**parts))


CHANGES: dict[str, Callable[[], dict[str, str]]] = {
    "the network": lambda: identity(fingerprint="g" * 8),
    "the calibration data": lambda: identity(replace(WORK, calibration={"x": WORK.calibration["x"][::-1]})),
    "the evaluation data": lambda: identity(_evaluation(inputs={"x": WORK.evaluation.inputs["x"][::-1]})),
    "the evaluation data ": lambda: identity(_evaluation(labels=WORK.evaluation.labels + 1)),
    "the metric": lambda: identity(replace(WORK, metric=halved)),
    "the device": lambda: identity(device={**DEVICE, "cores": 4}),
    "--backend": lambda: identity(asked=replace(OPTIONS, backend="openvino")),
    "--precisions": lambda: identity(asked=replace(OPTIONS, precisions=(Precision.FP32, Precision.INT8))),
    "--threads": lambda: identity(asked=replace(OPTIONS, threads=2)),
    "--batch-size": lambda: identity(asked=replace(OPTIONS, batch_size=2)),
    "--seed": lambda: identity(asked=replace(OPTIONS, seed=1)),
    "--holdout": lambda: identity(asked=replace(OPTIONS, holdout=0.25)),
    "--sensitivity-samples": lambda: identity(asked=replace(OPTIONS, sensitivity_samples=7)),
    "the calibration settings": lambda: identity(
        asked=replace(OPTIONS, calibration=CalibrationSettings(method=RangeMethod.MSE))
    ),
}


@pytest.mark.parametrize("part", CHANGES)
def test_a_change_is_a_difference_in_that_part(part: str, tmp_path: Path) -> None:
    """In that part alone; the folder of the run as it was is refused with the part's name."""
    before, after = identity(), CHANGES[part]()
    assert {name for name in before if before[name] != after[name]} == {part.strip()}
    write_run(tmp_path, before, study="s", created="c")
    assert check_folder(tmp_path, identity(), resume=True) == {"study": "s", "created": "c"}
    with pytest.raises(UsageError, match=rf"about something else; different: {part.strip()}"):
        check_folder(tmp_path, after, resume=True)


@pytest.mark.parametrize("part", ["the metric", "--seed"])
def test_a_record_without_a_part_is_another_run(part: str, tmp_path: Path) -> None:
    """An older program that did not look at it cannot have begun this run."""
    write_run(tmp_path, identity(), study="s", created="c")
    path = tmp_path / "run.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    del data["identity"][part]
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(UsageError, match=rf"different: {part}"):
        check_folder(tmp_path, identity(), resume=True)


def test_limits_trials_and_time_may_change() -> None:
    """They decide where a search goes and when it ends, not what was measured."""
    asked = replace(OPTIONS, budget=Constraints(latency_ms=1.0), trials=7, time_limit_s=3.0, out=Path("elsewhere"))
    assert identity(asked=asked) == identity()


def test_a_run_is_not_resumed_with_another_metric(tmp_path: Path) -> None:
    """Scores of one metric must not stand for another's."""
    asked = options(tmp_path / "run", trials=4)
    search(asked)
    with pytest.raises(UsageError, match="different: the metric"):
        search(replace(asked, resume=True), workload=toy.workload(metric=halved))
