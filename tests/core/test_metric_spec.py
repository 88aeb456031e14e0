"""Built-in metrics as they are written: outputs and settings behind the name, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from bitfront.core import METRICS, DataError, WorkloadError, as_metric
from bitfront.core.builtin_metrics import info_from_settings
from bitfront.core.metric import ComparedWith, Metric, OutputInfo
from bitfront.core.metric_spec import fit_metric, metric_of

OUTPUTS = (OutputInfo(name="boxes"), OutputInfo(name="logits"), OutputInfo(name="aux"))


def written(text: str) -> Metric:
    """The metric of a text."""
    found = metric_of(text, METRICS)
    assert found is not None
    return found


def test_a_name_alone_is_the_entry() -> None:
    """And what begins with no built-in name is none."""
    assert written("top1") is METRICS["top1"]
    assert metric_of("my_metrics:score", METRICS) is None
    assert metric_of("", METRICS) is None


def test_outputs_and_settings() -> None:
    """They may stand in any order; the name keeps all of them, for reports."""
    metric = written("f1:average=macro,logits,ignore=7")
    assert (metric.name, metric.reads) == ("f1:average=macro,logits,ignore=7", ("logits",))
    fitted = fit_metric(metric, OUTPUTS, labelled=True)
    assert fitted.outputs_are == ("unread", "classes", "unread")
    two = np.eye(2)[[0, 1, 1]]
    assert float(fitted((np.zeros((3, 4)), two, two), np.array([0, 1, 7]))) == 1.0
    assert float(METRICS["f1"]((two,), np.array([0, 1, 1]))) == 1.0  # the entry is as it was


def test_several_outputs_in_the_order_named() -> None:
    """As boxes, scores and classes are."""

    def first(outputs: tuple[np.ndarray, ...], labels: np.ndarray) -> float:
        return float(outputs[0][0] - outputs[1][0] + len(labels))

    metric = Metric(name="m", compute=first, reads=("aux", "boxes"), outputs_are=("values", "classes"))
    fitted = fit_metric(metric, OUTPUTS, labelled=True)
    assert fitted.outputs_are == ("classes", "unread", "values")
    assert float(fitted((np.array([1.0]), np.array([5.0]), np.array([9.0])), np.zeros(2))) == 10.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f1:mean=macro", "'f1' has no setting 'mean'"),
        ("top1:k=3", "'top1' has no setting 'k'"),
        ("f1:average=micro", r"average is 'micro', expected auto, binary or macro \(default: auto\)"),
        ("cer:blank=", r"blank is '', expected the number of the token that means none \(default: 0\)"),
        ("map:iou=50", "iou is '50', expected one threshold of overlap between 0 and 1"),
        ("iou:masks,", "an output has no name"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, message: str) -> None:
    """The text and the setting are named, with what was expected."""
    with pytest.raises(WorkloadError, match=f"--metric {text}: {message}"):
        metric_of(text, METRICS)


def test_labels_that_are_missing() -> None:
    """Metrics that read them say so; those that need none do not ask."""
    with pytest.raises(DataError, match="--metric iou: reads labels, and the evaluation data has none"):
        fit_metric(METRICS["iou"], OUTPUTS, labelled=False)
    with pytest.raises(DataError, match="--metric iou:masks: the network has no output 'masks'"):
        fit_metric(written("iou:masks"), OUTPUTS, labelled=True)
    assert fit_metric(METRICS["top1"], OUTPUTS, labelled=True) is METRICS["top1"]


def test_what_it_compares_with_is_written() -> None:
    """Where it is not labels; settings of before say nothing and mean labels."""
    metric = fit_metric(METRICS["agreement"], OUTPUTS, labelled=False)
    settings = metric.settings()
    assert settings["metric_compared_with"] == "given"
    assert "noise" in settings["metric_detail"]
    read = info_from_settings(settings)
    assert (read.settings(), read.quantity, read.text) == (settings, "agreement", metric.text)
    assert METRICS["top1"].settings().keys() == {"metric", "metric_direction", "metric_unit"}


def test_a_metric_of_your_own_without_labels() -> None:
    """It gets the given network's outputs, a tuple, in place of the labels."""

    def gap(outputs: tuple[np.ndarray, ...], given: tuple[np.ndarray, ...]) -> np.ndarray:
        return np.asarray(np.abs(outputs[0] - given[0]).max(axis=1))

    gap.compared_with, gap.direction = "given", "lower"  # type: ignore[attr-defined]
    metric = fit_metric(as_metric(gap), OUTPUTS, labelled=False)
    assert (metric.compared_with, metric.samples_first, metric.quantity) == (ComparedWith.GIVEN, True, "error")
    with pytest.raises(WorkloadError, match="compared_with is 'teacher', expected 'labels', 'given' or 'either'"):
        Metric(name="m", compute=gap, compared_with="teacher")  # type: ignore[arg-type]
