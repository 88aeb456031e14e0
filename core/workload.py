"""What a person brings: a network, calibration inputs, labelled inputs and a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bitfront.core.errors import WorkloadError

if TYPE_CHECKING:
    import torch

Array = NDArray[np.generic]
Inputs = Mapping[str, Array]

# (outputs of the network in its order and layout, labels) -> per-sample scores (n,) or one number; higher is better.
# Per-sample scores give the result a confidence interval and let scoring stop early.
Metric = Callable[[tuple[Array, ...], Array], "NDArray[np.generic] | float"]

# What a metric reads of a network: one of OUTPUT_KINDS for all outputs, or one each from the first on; None: unknown.
OutputsRead = str | tuple[str, ...] | None
OUTPUT_KINDS = ("classes", "values", "unread")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Inputs with labels.

    Attributes:
        inputs: One array per network input, laid out like ``Workload.calibration``; in the engine (n, …) each.
        labels: Shape (n, …), whatever the metric reads.
    """

    inputs: Inputs
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int) -> Labelled:
        """Samples ``start`` to ``stop``."""
        return Labelled(
            inputs={name: array[start:stop] for name, array in self.inputs.items()},
            labels=self.labels[start:stop],
        )


@runtime_checkable
class Workload(Protocol):
    """The seam a user implements to bring their own network.

    Properties are read when needed, so one may compute (load, train) on first access.

    Attributes:
        name: Shown in reports.
        model: A ``torch.nn.Module`` in any mode, or the path of an ONNX file.
        calibration: Inputs without labels, one array per network input, shape (n, …), or with the samples on the
            batch axis that an ONNX file declares; an input without one is a value all samples share. For a torch module
            the keys name the exported network's inputs, in the order of ``forward``'s arguments.
        evaluation: Labelled inputs; part of them is held back from the search.
        metric: How outputs are scored; ``top1`` is built in. Its attribute ``outputs_are`` may say what the outputs
            hold: see ``outputs_read``.

    Optional attributes, read only where they are used:
        batch_size: Samples per timed inference unless ``--batch-size`` says otherwise; a positive whole number.
        training: ``Inputs`` or ``Labelled``, needed by ``--passes``: what pruning, distillation and
            quantisation-aware training read. Prepared like ``calibration``; labels are class numbers, shape (n,).
        students: A list of ``torch.nn.Module``, smaller architectures to train by distillation; same inputs and
            output shapes as the model. What they are initialised with is where their training starts.
        augment: Fields of ``passes.data.Augmentation`` for training images: ``{"mirror": 0.5, "shift": 4}``.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see the class

    @property
    def model(self) -> torch.nn.Module | Path: ...  # noqa: D102 - see the class

    @property
    def calibration(self) -> Inputs: ...  # noqa: D102 - see the class

    @property
    def evaluation(self) -> Labelled: ...  # noqa: D102 - see the class

    @property
    def metric(self) -> Metric: ...  # noqa: D102 - see the class


def top1(outputs: tuple[Array, ...], labels: Array) -> NDArray[np.generic]:
    """Per-sample top-1 hits of the first output, logits or probabilities of shape (n, classes) or (n, classes, 1…).

    Returns:
        1.0 where the largest entry is the label, else 0.0; shape (n,).
    """
    scores = outputs[0].reshape(len(labels), -1)
    return np.asarray(scores.argmax(axis=1) == labels, dtype=np.float64)


def outputs_read(metric: Metric) -> OutputsRead:
    """What a metric reads, as its attribute ``outputs_are`` declares it; the first output's classes for ``top1``.

    ``"classes"`` are scores or probabilities of classes, ``"values"`` are numbers whose size matters; ``"unread"``
    outputs do not count. A word is about every output, a sequence of words about the first ones, those behind being
    unread.

    Raises:
        WorkloadError: If the attribute is something else.
    """
    while isinstance(metric, partial):
        metric = metric.func
    if metric is top1:
        return ("classes",)
    found = getattr(metric, "outputs_are", None)
    if found is None:
        return None
    words = (found,) if isinstance(found, str) else tuple(found) if isinstance(found, tuple | list) else (None,)
    if not words or any(word not in OUTPUT_KINDS for word in words) or set(words) == {"unread"}:
        raise WorkloadError(
            f"the metric's outputs_are: expected one of {', '.join(OUTPUT_KINDS)}, or a sequence of them that reads an "
            f"output, got {found!r}",
            "write for example metric.outputs_are = 'values'",
        )
    return found if isinstance(found, str) else tuple(found)
