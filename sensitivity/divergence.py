"""Divergence of a candidate's outputs from the FP32 network's: 0 for unchanged, growing with damage.

    kl       mean over samples and positions of Σ_c p_fp32(c) · ln(p_fp32(c) / p_scheme(c)), in nats
    nsr      Σ (y_fp32 − y_scheme)² / Σ y_fp32², the noise-to-signal power ratio 10^(−SQNR/10)
    changed  share of entries that differ

All are means over samples, and what is returned is each sample's part, so that differences get a standard error:
the part of a sample in NSR is its noise power over the mean signal power of all samples.

``sensitivity.divergence_metric`` decides which metric applies to which output. KL is summed over outputs (independent
heads add up), the others are averaged over theirs, and the three are added. A sample with NaN or infinity in an output
that counts scores NaN. −∞ in FP32's own output rules an entry out: it has probability 0 in KL, and no part in NSR.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Array, DataError
from bitfront.sensitivity.divergence_metric import CHANGED, KL, NSR, UNREAD

Outputs = tuple[Array, ...]
Floats = NDArray[np.float64]

# Probabilities come in float32, which resolves 1.2e-7 beside 1: below that a zero is not told from a small one.
_SMALLEST_PROBABILITY = 1e-7
_SUM_TOLERANCE = 1e-3
# Of an output at a time: what is computed on the way is several times as large, in float64.
_ENTRIES = 2**20


def divergence(divergence_metric: str, reference: Outputs, outputs: Outputs) -> Floats:
    """Divergence of each sample of ``outputs`` from ``reference``.

    Args:
        divergence_metric: One rule an output, as ``choose_divergence_metric`` writes it.
        reference: The FP32 network's outputs, (n, …) each of those that count; without NaN and +∞.
        outputs: The candidate's, of the same shapes.

    Returns:
        Shape (n,), 0 or more, its mean the score; NaN for samples whose outputs are not finite, infinite where the
        reference is all zero and the candidate is not.

    Raises:
        DataError: If the reference holds no numbers, or shapes differ.
    """
    if [output.shape for output in outputs] != [output.shape for output in reference]:
        raise DataError(
            f"outputs have shapes {[output.shape for output in outputs]}, "
            f"those of the FP32 network {[output.shape for output in reference]}",
            "the candidate is not the network it is compared with: report this, with the network",
        )
    found: dict[str, list[Floats]] = {KL: [], NSR: [], CHANGED: []}
    for head, wanted, output in zip(divergence_metric.split(","), reference, outputs, strict=False):
        rule, _, axis = head.partition(":")
        if rule == UNREAD:
            continue
        if rule == CHANGED:
            found[rule].append(changed(wanted, output))
            continue
        if any(np.isnan(part).any() or np.isposinf(part).any() for part in _parts(wanted)):
            raise DataError(
                "the FP32 network's outputs hold NaN or infinity on the calibration inputs",
                "check that the inputs are scaled as the network expects, and that it runs in FP32",
            )
        broken = np.concatenate([_broken(*pair) for pair in zip(_parts(wanted), _parts(output), strict=True)])
        if broken.any():
            output = output.copy()
            output[broken] = 0
        part = kl_divergence(wanted, output, int(axis or 1)) if rule == KL else noise_to_signal(wanted, output)
        part[broken] = np.nan
        found[rule].append(part)
    kinds = [np.sum(found[KL], axis=0), *(np.mean(found[rule], axis=0) for rule in (NSR, CHANGED) if found[rule])]
    return np.asarray(sum(kinds))


def kl_divergence(reference: Array, output: Array, axis: int = 1) -> Floats:
    """KL(softmax reference ‖ softmax output) of each sample, in nats, the mean over its positions.

    Where the reference already holds probabilities, both are taken as such; a row of the output that does not sum
    to 1 is scaled to it.

    Args:
        reference: Logits or probabilities, (n, …), finite or −∞.
        output: The same of the candidate.
        axis: Of the classes; all other axes but the first are positions.
    """
    wanted, found = (np.moveaxis(array, axis, -1) for array in (reference, output))
    to_log = _log_of_probabilities if all(map(_holds_probabilities, _parts(wanted))) else _log_softmax
    return np.concatenate(
        [_kl(to_log(one), to_log(other)) for one, other in zip(_parts(wanted), _parts(found), strict=True)]
    )


def noise_to_signal(reference: Array, output: Array) -> Floats:
    """Noise power of each sample over the mean signal power of the reference, (n,); its mean is the NSR."""
    rows = len(reference)
    # Scaled by the largest value, squares neither overflow nor vanish.
    largest = max(
        (float(np.abs(part).max(initial=0.0, where=np.isfinite(part))) for part in _parts(reference)), default=0
    )
    if largest == 0:
        differs = ((output != 0) & np.isfinite(reference)).reshape(rows, -1).any(axis=1)
        return np.where(differs, np.inf, 0.0)
    noise, signal = [], []
    for wanted, found in zip(_parts(reference), _parts(output), strict=True):
        counts = np.isfinite(wanted)
        difference = np.subtract(wanted, found, out=np.zeros_like(wanted), where=counts)
        noise.append(_power(difference / largest))
        signal.append(_power(np.where(counts, wanted, 0.0) / largest))
    return np.asarray(np.concatenate(noise) / np.concatenate(signal).mean())


def changed(reference: Array, output: Array) -> Floats:
    """Fraction of each sample's entries that differ, (n,)."""
    return np.asarray((reference != output).reshape(len(reference), -1).mean(axis=1), dtype=np.float64)


def _parts(array: Array) -> Iterator[Floats]:
    """The array in float64, some samples at a time; one empty part of an empty array."""
    step = max(1, _ENTRIES // max(1, array[:1].size))
    for start in range(0, max(1, len(array)), step):
        yield np.asarray(array[start : start + step], dtype=np.float64)


def _broken(reference: Floats, output: Floats) -> NDArray[np.bool_]:
    """Whether each sample of the output holds what is not finite and not the reference's."""
    return np.asarray((~np.isfinite(output) & (output != reference)).reshape(len(output), -1).any(axis=1))


def _power(values: Floats) -> Floats:
    return np.asarray((values.reshape(len(values), -1) ** 2).sum(axis=1))


def _kl(log_wanted: Floats, log_found: Floats) -> Floats:
    """Each sample's KL, from logarithms of probabilities with the classes last."""
    difference = np.subtract(log_wanted, log_found, out=np.zeros_like(log_wanted), where=np.isfinite(log_wanted))
    parts = np.sum(np.exp(log_wanted) * difference, axis=-1)
    # Rounding leaves equal rows a last bit below zero.
    return np.asarray(np.maximum(parts, 0.0).reshape(len(parts), -1).mean(axis=1))


def _holds_probabilities(values: Floats) -> bool:
    sums = values.sum(axis=-1)
    return bool((values >= 0).all() and (np.abs(sums - 1) <= _SUM_TOLERANCE).all())


def _log_softmax(logits: Floats) -> Floats:
    largest = logits.max(axis=-1, keepdims=True)
    shifted = logits - np.where(np.isfinite(largest), largest, 0.0)
    total = np.exp(shifted).sum(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.where(total > 0, total, 1.0)))


def _log_of_probabilities(values: Floats) -> Floats:
    kept = np.maximum(values, _SMALLEST_PROBABILITY)
    return np.asarray(np.log(kept / kept.sum(axis=-1, keepdims=True)))
