"""Workload, which a person brings: a network, calibration inputs, labelled inputs and a metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from bitfront.core.metric import Array, Metric, MetricFunction

if TYPE_CHECKING:
    import torch

Inputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Inputs with labels.

    Attributes:
        inputs: One array per network input, laid out like ``Workload.calibration``; in the engine (n, …) each.
        labels: Shape (n, …), whatever the metric reads; (n, 0) where there are none.
    """

    inputs: Inputs
    labels: Array

    @classmethod
    def without_labels(cls, inputs: Inputs) -> Labelled:
        """Make evaluation data of inputs alone, (n, …) each."""
        return cls(inputs=inputs, labels=np.zeros((len(next(iter(inputs.values()))), 0), np.int64))

    @property
    def has_labels(self) -> bool:
        """Whether there are labels."""
        return not (self.labels.ndim == 2 and self.labels.shape[1] == 0)

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
            the keys are parameters of ``forward`` and name the exported network's inputs (where no key is one, they are
            in the order of ``forward``'s arguments); samples that differ in shape are a list of arrays.
        evaluation: Labelled inputs, or ``Labelled.without_labels(inputs)`` for a metric that reads none; part of them
            is held out from the search.
        metric: How outputs are scored: a built-in metric such as ``top1`` or its name, a ``Metric``, or a function as
            ``core.metric`` says.

    Optional attributes, read only where they are used:
        batch_size: Samples per timed inference unless ``--batch-size`` says otherwise; a positive whole number.
        state: Output name → the input that it feeds at the next step: samples are sequences then, (n, time, …) or a
            list of (time, …), whose states begin at zero or at given arrays. Accuracy is that of whole sequences,
            latency that of a step.
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
    def metric(self) -> Metric | MetricFunction: ...  # noqa: D102 - see the class
