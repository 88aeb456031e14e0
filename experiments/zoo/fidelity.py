"""Nearness of outputs to those of the network as it was given: the zoo's measure, for want of labels.

    noise of one output = mean (x̂ − x)² / mean x²,  SQNR = −10 log₁₀ noise dB

``fidelity`` is the metric that searches of the zoo are run with: the labels are the given network's own outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Array


def labels_of(outputs: Sequence[Sequence[Array]]) -> NDArray[np.float32]:
    """Labels for ``fidelity``: each sample's outputs in one row, float32 (n, values).

    Args:
        outputs: Sample → output → array, of the given network run on one sample at a time.
    """
    return np.stack([np.concatenate([array.astype(np.float32).ravel() for array in sample]) for sample in outputs])


def fidelity(outputs: tuple[Array, ...], labels: Array) -> NDArray[np.float64]:
    """Score each sample by 1 − its noise-to-signal ratio, at least 0, averaged over outputs; shape (n,).

    An output counts the samples on its first axis of their number; one that counts none isn't read, though its values
    stand among the labels.
    """
    count, start, scores = len(labels), 0, []
    for array in outputs:
        axis = next((axis for axis, size in enumerate(array.shape) if size == count), None)
        if axis is None:
            start += array.size
            continue
        found = np.moveaxis(array, axis, 0).reshape(count, -1).astype(np.float64)
        wanted = labels[:, start : start + found.shape[1]].astype(np.float64)
        start += found.shape[1]
        scores.append(1 - np.minimum(noise(wanted, found), 1))
    return np.mean(scores, axis=0) if scores else np.zeros(count)


fidelity.outputs_are = "values"  # type: ignore[attr-defined] # what sensitivity is measured by


def noise(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Noise-to-signal ratio of each row of (n, values); 0 where both are the same, infinite where they only differ."""
    signal, error = np.square(wanted).mean(axis=1), np.square(found - wanted).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0, error / signal)
    return np.nan_to_num(ratio, nan=np.inf, posinf=np.inf)


def sqnr_db(wanted: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> float:
    """Signal to quantisation noise over all samples in dB, of the output that has least; infinite where all agree."""
    ratios = []
    for output in range(len(wanted[0])):
        one = np.concatenate([sample[output].astype(np.float64).ravel() for sample in wanted])
        other = np.concatenate([sample[output].astype(np.float64).ravel() for sample in found])
        ratios.append(float(noise(one[None], other[None])[0]))
    worst = max(ratios)
    return np.inf if worst == 0 else float(-10 * np.log10(worst))


def agreement(wanted: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> float | None:
    """Share of rows of the first output whose largest entry is in the same place; None for rows of one entry."""
    if not wanted[0][0].ndim or wanted[0][0].shape[-1] < 2:
        return None
    same = [
        np.mean(one[0].argmax(axis=-1) == other[0].argmax(axis=-1)) for one, other in zip(wanted, found, strict=True)
    ]
    return float(np.mean(same))
