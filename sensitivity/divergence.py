"""How far a candidate's outputs are from the FP32 network's: one number, 0 for unchanged, growing with damage.

    kl    mean over samples of Σ_c p_fp32(c) · ln(p_fp32(c) / p_choice(c)), in nats; for classifiers
    nsr   Σ (y_fp32 − y_choice)² / Σ y_fp32², the noise-to-signal power ratio 10^(−SQNR/10); for the rest

KL is summed over the outputs that look like a classifier's (independent heads add up); other outputs don't count
beside them. NSR is the mean over outputs. A candidate with NaN or infinity in an output scores NaN.
"""

from __future__ import annotations

import math

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


def divergence(measure: str, reference: Outputs, outputs: Outputs) -> float:
    """How far ``outputs`` are from ``reference``.

    Args:
        measure: ``kl`` or ``nsr``.
        reference: The FP32 network's outputs, (n, …) each; must be finite.
        outputs: The candidate's, of the same shapes.

    Returns:
        0 or more; NaN where the candidate's outputs are not finite, infinite where the reference is all zero and
        the candidate is not.

    Raises:
        DataError: If the reference is not finite, or shapes differ.
    """
    if [output.shape for output in outputs] != [output.shape for output in reference]:
        raise DataError(
            f"outputs have shapes {[output.shape for output in outputs]}, "
            f"those of the FP32 network {[output.shape for output in reference]}"
        )
    if not all(np.isfinite(_floats(output)).all() for output in reference):
        raise DataError(
            "the FP32 network's outputs hold NaN or infinity on the calibration inputs",
            "check that the inputs are scaled as the network expects, and that it runs in FP32",
        )
    pairs = [(_floats(wanted), _floats(found)) for wanted, found in zip(reference, outputs, strict=True)]
    if not all(np.isfinite(found).all() for _, found in pairs):
        return math.nan
    if measure == KL:
        heads = [pair for pair, output in zip(pairs, reference, strict=True) if _is_classifier(output)]
        return math.fsum(kl_divergence(wanted, found) for wanted, found in heads)
    return math.fsum(noise_to_signal(wanted, found) for wanted, found in pairs) / len(pairs)


def kl_divergence(reference: Floats, output: Floats) -> float:
    """Mean KL(softmax reference ‖ softmax output) in nats.

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
    return max(float(np.mean(np.sum(np.exp(log_wanted) * (log_wanted - log_found), axis=1))), 0.0)


def noise_to_signal(reference: Floats, output: Floats) -> float:
    """Power of the difference over power of the reference, over all samples together."""
    # Scaled by the largest value, squares neither overflow nor vanish.
    largest = float(np.abs(reference).max(initial=0.0))
    if largest == 0:
        return math.inf if output.any() else 0.0
    return float(np.sum(((reference - output) / largest) ** 2) / np.sum((reference / largest) ** 2))


def sqnr_db(noise_to_signal_ratio: float) -> float:
    """The signal-to-quantisation-noise ratio in dB; infinite without noise."""
    return -10 * math.log10(noise_to_signal_ratio) if noise_to_signal_ratio > 0 else math.inf


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
