"""How far a candidate's outputs are from the FP32 network's: 0 for unchanged, growing with damage.

    kl    mean over samples of Σ_c p_fp32(c) · ln(p_fp32(c) / p_choice(c)), in nats; for classifiers
    nsr   Σ (y_fp32 − y_choice)² / Σ y_fp32², the noise-to-signal power ratio 10^(−SQNR/10); for the rest

Both are means over samples, and what is returned is each sample's part, so that differences get a standard error:
the part of a sample in NSR is its noise power over the mean signal power of all samples.

KL is summed over the outputs that look like a classifier's (independent heads add up); other outputs don't count
beside them. NSR is the mean over outputs. A sample with NaN or infinity in an output scores NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from precision import Array, DataError

Outputs = tuple[Array, ...]
Floats = NDArray[np.float64]

KL = "kl"
NSR = "nsr"

# Probabilities come in float32, which resolves 1.2e-7 beside 1: below that a zero is not told from a small one.
_SMALLEST_PROBABILITY = 1e-7
_SUM_TOLERANCE = 1e-3


def choose_measure(outputs: Outputs) -> str:
    """``kl`` when the first output is a classifier's, (n, classes ≥ 2) with any number of ones behind, else ``nsr``."""
    return KL if outputs and _is_classifier(outputs[0]) else NSR


def divergence(measure: str, reference: Outputs, outputs: Outputs) -> Floats:
    """How far each sample of ``outputs`` is from ``reference``.

    Args:
        measure: ``kl`` or ``nsr``.
        reference: The FP32 network's outputs, (n, …) each; must be finite.
        outputs: The candidate's, of the same shapes.

    Returns:
        Shape (n,), 0 or more, its mean the score; NaN for samples whose outputs are not finite, infinite where the
        reference is all zero and the candidate is not.

    Raises:
        DataError: If the reference is not finite, or shapes differ.
    """
    if [output.shape for output in outputs] != [output.shape for output in reference]:
        raise DataError(
            f"outputs have shapes {[output.shape for output in outputs]}, "
            f"those of the FP32 network {[output.shape for output in reference]}",
            "the candidate is not the network it is compared with: report this, with the network",
        )
    if not all(np.isfinite(_floats(output)).all() for output in reference):
        raise DataError(
            "the FP32 network's outputs hold NaN or infinity on the calibration inputs",
            "check that the inputs are scaled as the network expects, and that it runs in FP32",
        )
    heads = [_is_classifier(output) or measure == NSR for output in reference]
    total = np.zeros(len(reference[0]))
    for wanted, found, counts in zip(reference, outputs, heads, strict=True):
        values = _floats(found)
        broken = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if counts:
            whole = np.where(broken.reshape(-1, *[1] * (values.ndim - 1)), 0.0, values)
            rule = kl_divergence if measure == KL else noise_to_signal
            total += rule(_floats(wanted), whole)
        total[broken] = np.nan
    return total if measure == KL else total / len(reference)


def kl_divergence(reference: Floats, output: Floats) -> Floats:
    """KL(softmax reference ‖ softmax output) of each sample, in nats.

    Where the reference already holds probabilities, both are taken as such; a row of the output that does not sum
    to 1 is scaled to it.

    Args:
        reference: Logits or probabilities, (n, classes, 1…), finite.
        output: The same of the candidate.
    """
    rows = len(reference)
    wanted, found = reference.reshape(rows, -1), output.reshape(rows, -1)
    to_log = _log_of_probabilities if _holds_probabilities(wanted) else _log_softmax
    log_wanted, log_found = to_log(wanted), to_log(found)
    parts = np.sum(np.exp(log_wanted) * (log_wanted - log_found), axis=1)
    return np.asarray(np.maximum(parts, 0.0))  # rounding leaves equal rows a last bit below zero


def noise_to_signal(reference: Floats, output: Floats) -> Floats:
    """Each sample's power of the difference over the mean sample's power of the reference; the mean is the NSR."""
    # Scaled by the largest value, squares neither overflow nor vanish.
    largest = float(np.abs(reference).max(initial=0.0))
    rows = len(reference)
    if largest == 0:
        return np.where(output.reshape(rows, -1).any(axis=1), np.inf, 0.0)
    noise = np.sum(((reference - output) / largest).reshape(rows, -1) ** 2, axis=1)
    signal = np.sum((reference / largest).reshape(rows, -1) ** 2, axis=1)
    return np.asarray(noise / signal.mean())


def _is_classifier(output: Array) -> bool:
    shape = output.shape
    floating = bool(np.issubdtype(output.dtype, np.floating))
    return floating and len(shape) >= 2 and shape[1] >= 2 and all(size == 1 for size in shape[2:])


def _floats(output: Array) -> Floats:
    return np.asarray(output, dtype=np.float64)


def _holds_probabilities(values: Floats) -> bool:
    sums = values.sum(axis=1)
    return bool((values >= 0).all() and (np.abs(sums - 1) <= _SUM_TOLERANCE).all())


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _log_of_probabilities(values: Floats) -> Floats:
    kept = np.maximum(values, _SMALLEST_PROBABILITY)
    return np.asarray(np.log(kept / kept.sum(axis=1, keepdims=True)))
