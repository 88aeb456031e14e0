"""Evaluation data of files and the metric that fits it: labels where there are any, else the given network's answers.

Without ``--eval`` half of the calibration samples, drawn by a fixed seed, is kept out of calibration and scored on: a
first try needs one file. It says less than data that the network meets in use, and every result says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitfront.core import METRICS, DataError, Inputs, Labelled, Metric, UsageError
from bitfront.core.batching import take_rows
from bitfront.core.builtin_metrics import DEFAULT, WITHOUT_LABELS
from bitfront.core.metric import ComparedWith, OutputInfo
from bitfront.core.metric_spec import fit_metric
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.inputs.arrays import MissingLabelsError
from bitfront.search.inputs.data.base import EVAL, LoadedData
from bitfront.search.inputs.data.random_data import RANDOM
from bitfront.search.inputs.data.registry import load_data
from bitfront.search.inputs.source import Source
from bitfront.sensitivity.output_infos import output_infos

FEWEST = 4
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Samples that candidates are scored on, and the metric that scores them.

    Attributes:
        calibration: What is left to calibrate on.
        data: The evaluation data; without labels where there are none, or none are read.
        source: Form and text of where it came from.
        metric: As named, or the one that fits the data.
        notices: What a person should know of it.
    """

    calibration: Inputs
    data: Labelled
    source: dict[str, str]
    metric: Metric
    notices: tuple[str, ...] = ()


def usual_metric(source: Source, named: Metric | None) -> Metric:
    """The metric of a source before its data is read.

    Args:
        source: The options.
        named: What ``--metric`` says; None where it is left out.

    Raises:
        UsageError: If there is no evaluation data, and it cannot be done without.
    """
    if source.evaluation is not None:
        return named or METRICS[DEFAULT]
    metric = named or METRICS[WITHOUT_LABELS]
    if metric.compared_with is ComparedWith.LABELS:
        raise UsageError(
            f"--eval is missing: metric '{metric.name}' needs labelled inputs to score candidates with",
            "give --eval eval.npz, with arrays named like the network's inputs and 'labels', or data of another form "
            "(docs/data.md)",
        )
    if source.calibration == RANDOM:
        raise UsageError(
            "--eval is missing: a search needs inputs to score candidates with, and random ones tell nothing",
            "give --eval eval.npz, with labels or without, or real inputs as --calib",
        )
    return metric


def read_evaluation_data(
    source: Source, metric: Metric, calibration: LoadedData, reference: ReferenceModel
) -> Evaluation:
    """Read the evaluation data of an ONNX file, or take it from the calibration data.

    Args:
        source: The options.
        metric: What ``usual_metric`` gave.
        calibration: The calibration data.
        reference: The network.

    Raises:
        DataError: If it is damaged, does not fit, or has no labels for a metric that reads them.
    """
    if source.evaluation is None:
        return _kept_from_calibration(metric, calibration)
    notices: tuple[str, ...] = ()
    try:
        found = _load(source, reference, labelled=metric.compared_with is not ComparedWith.GIVEN)
    except MissingLabelsError as error:
        if source.metric is not None and metric.compared_with is ComparedWith.LABELS:
            raise DataError(
                f"{error.message}, and metric '{metric.name}' reads them",
                f"{error.hint}; without --metric, candidates are compared with the network as given",
            ) from error
        if source.metric is None:
            metric = METRICS[WITHOUT_LABELS]
            notices = (f"'{source.evaluation}' has no labels: candidates are compared with the network as given",)
        found = _load(source, reference, labelled=False)
    return Evaluation(
        calibration=calibration.inputs,
        data=found.labelled,
        source=found.to_json(),
        metric=metric,
        notices=notices,
    )


def fitted(evaluation: Evaluation, reference: ReferenceModel, *, stepwise: bool = False) -> Evaluation:
    """Evaluation with the metric for this network's outputs, and a notice of what it compares where it reads no labels.

    Args:
        evaluation: Data and the metric as named.
        reference: The network.
        stepwise: Whether samples are sequences, so that outputs are scored with time as their second axis.

    Raises:
        DataError: If the metric reads labels and there are none, or an output that the network does not have.
    """
    outputs = fitted_outputs(reference, stepwise=stepwise)
    metric = fit_metric(evaluation.metric, outputs, labelled=evaluation.data.has_labels)
    notices = evaluation.notices
    if metric.compared_with is ComparedWith.GIVEN:
        told = f"the metric is {metric.text}: it does not tell how right the answers are"
        if metric.name == WITHOUT_LABELS and "top class" in metric.detail:
            told += "; --metric fidelity compares outputs as numbers"
        notices = (*notices, told)
    return replace(evaluation, metric=metric, notices=notices)


def fitted_outputs(reference: ReferenceModel, *, stepwise: bool) -> tuple[OutputInfo, ...]:
    """Descriptions of the network's outputs for a metric; arguments as for ``fitted``."""
    outputs = output_infos(reference)
    return tuple(_with_time(output) for output in outputs) if stepwise else outputs


def _with_time(output: OutputInfo) -> OutputInfo:
    axis = output.class_axis
    return output if axis is None or axis < 0 else replace(output, class_axis=axis + 1)


def _kept_from_calibration(metric: Metric, calibration: LoadedData) -> Evaluation:
    inputs = calibration.inputs
    count = len(next(iter(inputs.values())))
    if count < FEWEST:
        raise DataError(
            f"--eval is missing, and the {count} calibration samples are too few to keep half of them for scoring",
            f"give --eval eval.npz, with labels or without, or {FEWEST} calibration samples or more",
        )
    order = np.random.default_rng(_SEED).permutation(count)
    kept, left = np.sort(order[: count // 2]), np.sort(order[count // 2 :])
    text = f"{len(kept)} of the {count} calibration samples, kept out of calibration"
    return Evaluation(
        calibration={name: take_rows(array, left) for name, array in inputs.items()},
        data=Labelled.without_labels({name: take_rows(array, kept) for name, array in inputs.items()}),
        source={"form": calibration.form, "text": text},
        metric=metric,
        notices=(f"no --eval: candidates are scored on {text}; give data as the network meets it in use",),
    )


def _load(source: Source, reference: ReferenceModel, *, labelled: bool) -> LoadedData:
    assert source.model is not None
    assert source.evaluation is not None
    return load_data(
        source.evaluation,
        EVAL,
        source.data_options,
        source.model,
        reference,
        labelled=labelled,
        state=dict(source.state),
    )
