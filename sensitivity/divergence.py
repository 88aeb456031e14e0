"""Divergence of a candidate's outputs from the FP32 network's: 0 for unchanged, growing with damage.

    kl       mean over samples and positions of Σ_c p_fp32(c) · ln(p_fp32(c) / p_scheme(c)), in nats
    nsr      Σ (y_fp32 − y_scheme)² / Σ y_fp32², the noise-to-signal power ratio 10^(−SQNR/10)
    changed  share of entries that differ

All are means over samples, and what is returned is each sample's part, so that differences get a standard error:
the part of a sample in NSR is its noise power over the mean signal power of all samples.

``sensitivity.divergence_metric`` decides which metric applies to which output. KL is summed over outputs (independent
heads add up), the others are averaged over theirs, and the three are added. A sample with NaN or infinity in an output
that counts scores NaN. −∞ in FP32's own output rules an entry out: it has probability 0 in KL, and no part in NSR.

Outputs may come in parts, some samples at a time: what all samples of the reference decide (``ReferenceScale``) is
found first. Of a part a block at a time is taken in float64, so that beside the parts nothing grows with the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Array, DataError
from bitfront.sensitivity.divergence_metric import CHANGED, KL, NSR, UNREAD

Outputs = tuple[Array, ...]
Floats = NDArray[np.float64]
Blocks = Iterator[tuple[slice, slice]]  # of the rows and columns of a table (rows, columns, width)

# Probabilities come in float32, which resolves 1.2e-7 beside 1: below that a zero is not told from a small one.
_SMALLEST_PROBABILITY = 1e-7
_SUM_TOLERANCE = 1e-3
# Of an output at a time: what is computed on the way is several times as large, in float64.
_ENTRIES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceScale:
    """Properties of all samples of one reference output, by which the divergence of any of them is taken.

    Attributes:
        probabilities: Whether it holds probabilities of classes, so that KL takes no softmax.
        largest: Largest finite magnitude; scaled by it, squares neither overflow nor vanish.
        power: Mean signal power of a sample, of values over ``largest``.
    """

    probabilities: bool = False
    largest: float = 0.0
    power: float = 0.0


class DivergenceFrom:
    """Divergence of candidates' outputs from one reference, some samples at a time.

    Args:
        divergence_metric: One rule an output, as ``choose_divergence_metric`` writes it.
        reference: Gives the FP32 network's outputs, (n, …) each, in parts of some samples; called more than once.

    Raises:
        DataError: If an output of the reference that counts holds NaN or +∞.
    """

    def __init__(self, divergence_metric: str, reference: Callable[[], Iterable[Outputs]]) -> None:
        self._rules = [rule.partition(":") for rule in divergence_metric.split(",")]
        self._scales = [
            _scale_of(rule, _class_axis(axis), partial(_parts_of, reference, head))
            for head, (rule, _, axis) in enumerate(self._rules)
        ]

    def of(self, reference: Outputs, outputs: Outputs) -> Floats:
        """Divergence of each sample of one part.

        Args:
            reference: A part of the reference's outputs.
            outputs: The candidate's on the same samples, of the same shapes.

        Returns:
            Shape (n,), 0 or more; NaN for samples whose outputs are not finite, infinite where the reference is all
            zero and the candidate is not.

        Raises:
            DataError: If shapes differ.
        """
        if [output.shape for output in outputs] != [output.shape for output in reference]:
            raise DataError(
                f"outputs have shapes {[output.shape for output in outputs]}, "
                f"those of the FP32 network {[output.shape for output in reference]}",
                "the candidate is not the network it is compared with: report this, with the network",
            )
        found: dict[str, list[Floats]] = {KL: [], NSR: [], CHANGED: []}
        heads = zip(self._rules, self._scales, reference, outputs, strict=False)
        for (rule, _, axis), scale, wanted, output in heads:
            if rule == UNREAD:
                continue
            if rule == CHANGED:
                found[rule].append(changed(wanted, output))
                continue
            broken = _broken(wanted, output)
            if broken.any():
                output = output.copy()
                output[broken] = 0
            if rule == KL:
                part = kl_divergence(wanted, output, _class_axis(axis), scale)
            else:
                part = noise_to_signal(wanted, output, scale)
            part[broken] = np.nan
            found[rule].append(part)
        kinds = [np.sum(found[KL], axis=0), *(np.mean(found[rule], axis=0) for rule in (NSR, CHANGED) if found[rule])]
        return np.asarray(sum(kinds))


def divergence(divergence_metric: str, reference: Outputs, outputs: Outputs) -> Floats:
    """Divergence of each sample of ``outputs`` from ``reference``, all samples at once.

    Args:
        divergence_metric: One rule an output, as ``choose_divergence_metric`` writes it.
        reference: The FP32 network's outputs, (n, …) each of those that count; without NaN and +∞.
        outputs: The candidate's, of the same shapes.

    Returns:
        Shape (n,), as of ``DivergenceFrom.of``; its mean is the score.

    Raises:
        DataError: If the reference holds no numbers, or shapes differ.
    """
    return DivergenceFrom(divergence_metric, lambda: [reference]).of(reference, outputs)


def kl_divergence(reference: Array, output: Array, axis: int = 1, scale: ReferenceScale | None = None) -> Floats:
    """KL(softmax reference ‖ softmax output) of each sample, in nats, the mean over its positions.

    Where the reference already holds probabilities, both are taken as such; a row of the output that does not sum
    to 1 is scaled to it.

    Args:
        reference: Logits or probabilities, (n, …), finite or −∞.
        output: The same of the candidate.
        axis: Of the classes; all other axes but the first are positions.
        scale: Of the whole reference, of which this is a part; by default of this.
    """
    scale = scale or _scale_of(KL, axis, lambda: [reference])
    to_log = _log_of_probabilities if scale.probabilities else _log_softmax
    wanted, found = _table(reference, axis), _table(output, axis)
    sums = np.zeros(len(wanted))
    for at in _blocks(wanted.shape):
        sums[at[0]] += _kl(to_log(_in_float64(wanted[at])), to_log(_in_float64(found[at])))
    return np.asarray(sums / max(1, wanted.shape[1]))


def noise_to_signal(reference: Array, output: Array, scale: ReferenceScale | None = None) -> Floats:
    """Noise power of each sample over the mean signal power of the reference, (n,); its mean is the NSR.

    Args:
        reference: Numbers, (n, …), finite or −∞.
        output: The same of the candidate.
        scale: Of the whole reference, of which this is a part; by default of this.
    """
    scale = scale or _scale_of(NSR, None, lambda: [reference])
    all_wanted, all_found = _table(reference), _table(output)
    noise = np.zeros(len(all_wanted))
    for at in _blocks(all_wanted.shape):
        wanted, found = _in_float64(all_wanted[at]), _in_float64(all_found[at])
        counts = np.isfinite(wanted)
        difference = np.subtract(wanted, found, out=np.zeros_like(wanted), where=counts)
        noise[at[0]] += _power(difference / scale.largest if scale.largest else np.sign(difference))
    return np.asarray(noise / scale.power if scale.largest else np.where(noise > 0, np.inf, 0.0))


def changed(reference: Array, output: Array) -> Floats:
    """Fraction of each sample's entries that differ, (n,)."""
    return np.asarray((reference != output).reshape(len(reference), -1).mean(axis=1), dtype=np.float64)


def _parts_of(outputs: Callable[[], Iterable[Outputs]], head: int) -> Iterator[Array]:
    for part in outputs():
        yield part[head]


def _class_axis(text: str) -> int:
    return int(text or 1)


def _scale_of(rule: str, axis: int | None, parts: Callable[[], Iterable[Array]]) -> ReferenceScale:
    """The scale of an output of the reference, of which ``parts`` gives all samples.

    Raises:
        DataError: If it holds NaN or +∞.
    """
    if rule not in (KL, NSR):
        return ReferenceScale()
    probabilities, largest, power = True, 0.0, []
    for part in parts():
        table = _table(part, axis if rule == KL else None)
        for at in _blocks(table.shape):
            values = _in_float64(table[at])
            if np.isnan(values).any() or np.isposinf(values).any():
                raise DataError(
                    "the FP32 network's outputs hold NaN or infinity on the calibration inputs",
                    "check that the inputs are scaled as the network expects, and that it runs in FP32",
                )
            if rule == KL:
                probabilities = probabilities and _holds_probabilities(values)
            largest = max(largest, float(np.abs(values).max(initial=0.0, where=np.isfinite(values))))
    if rule == KL or largest == 0:
        return ReferenceScale(probabilities=probabilities, largest=largest)
    for part in parts():
        table = _table(part)
        sums = np.zeros(len(table))
        for at in _blocks(table.shape):
            values = _in_float64(table[at])
            sums[at[0]] += _power(np.where(np.isfinite(values), values, 0.0) / largest)
        power.append(sums)
    return ReferenceScale(largest=largest, power=float(np.concatenate(power).mean()))


def _table(array: Array, axis: int | None = None) -> Array:
    """An output as (n, positions, classes); without classes as (n, entries, 1)."""
    if axis is not None:
        array = np.moveaxis(array, axis, -1)
    width = 1 if axis is None else array.shape[-1]
    return array.reshape(len(array), array[:1].size // max(1, width * min(1, len(array))), width)


def _blocks(shape: tuple[int, ...]) -> Blocks:
    """Slices that divide a table into blocks of at most ``_ENTRIES`` entries, or of one position."""
    rows, columns, width = shape
    across = max(1, min(columns, _ENTRIES // max(1, width)))
    down = max(1, _ENTRIES // max(1, columns * width))
    for top in range(0, rows, down):
        for left in range(0, columns, across):
            yield slice(top, top + down), slice(left, left + across)


def _in_float64(block: Array) -> Floats:
    return np.asarray(block, dtype=np.float64)


def _broken(reference: Array, output: Array) -> NDArray[np.bool_]:
    """Whether each sample of the output holds what is not finite and not the reference's."""
    all_wanted, all_found = _table(reference), _table(output)
    found = np.zeros(len(all_wanted), bool)
    for at in _blocks(all_wanted.shape):
        wanted, output = _in_float64(all_wanted[at]), _in_float64(all_found[at])
        found[at[0]] |= (~np.isfinite(output) & (output != wanted)).any(axis=(1, 2))
    return found


def _power(values: Floats) -> Floats:
    return np.asarray((values.reshape(len(values), -1) ** 2).sum(axis=1))


def _kl(log_wanted: Floats, log_found: Floats) -> Floats:
    """Each sample's KL summed over positions, from logarithms of probabilities with the classes last."""
    difference = np.subtract(log_wanted, log_found, out=np.zeros_like(log_wanted), where=np.isfinite(log_wanted))
    parts = np.sum(np.exp(log_wanted) * difference, axis=-1)
    # Rounding leaves equal rows a last bit below zero.
    return np.asarray(np.maximum(parts, 0.0).sum(axis=1))


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
