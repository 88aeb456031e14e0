"""Agreement with the given network on the same samples; no labels are read.

    class scores  1 where the top class is the given network's, else 0; of several positions the share of those
    numbers       max(0, 1 − NSR),  NSR = Σ (y − ŷ)² / Σ y²: 0.99 is a signal-to-noise ratio of 20 dB, 0.999 of 30 dB
    integers      the share of values that are the given network's

A sample agrees as far as the least agreeing of its outputs: the mean over outputs would hide one that is lost among
many. Where samples differ in shape from the given network's, nothing agrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitfront.core.errors import DataError
from bitfront.core.metric import Array, Metric, OutputInfo

Rule = tuple[str, int]
"""A rule of those below, and the axis of the classes in a sample; for the other rules it means nothing."""

CLASSES, NUMBERS, EQUAL, UNREAD = "classes", "numbers", "equal", "unread"
_READ_AS = {CLASSES: "classes", NUMBERS: "values", EQUAL: "values", UNREAD: "unread"}
_SILENCE = 1e-12  # mean square of outputs that are zero but for rounding


def agreement(outputs: tuple[Array, ...], given: tuple[Array, ...], *, rules: tuple[Rule, ...]) -> NDArray[np.float64]:
    """Score how far each sample's outputs agree with the given network's.

    Args:
        outputs: Shape (n, …) each.
        given: The given network's.
        rules: How each output is compared.

    Returns:
        Between 0 and 1, shape (n,).
    """
    parts = [
        [_agreement(np.asarray(a), np.asarray(b), rule) for a, b in zip(found, wanted, strict=True)]
        for found, wanted, rule in zip(outputs, given, rules, strict=True)
        if rule[0] != UNREAD
    ]
    return np.asarray(np.array(parts, np.float64).min(axis=0))


def fit_agreement(metric: Metric, outputs: Sequence[OutputInfo], *, numbers_only: bool) -> Metric:
    """The metric for the outputs of a network: class scores by the top class, all else as numbers.

    Of several outputs all that hold floating-point numbers count; where none does, all.

    Args:
        metric: ``agreement`` or ``fidelity``; ``reads`` may name the outputs that count.
        outputs: The network's.
        numbers_only: Compare class scores as numbers too.

    Raises:
        DataError: If an output is named that the network does not have.
    """
    names = [output.name for output in outputs]
    missing = [name for name in metric.reads if name not in names]
    if missing:
        raise DataError(
            f"--metric {metric.name}: the network has no output '{missing[0]}'",
            f"its outputs are {', '.join(names)}",
        )
    read = set(metric.reads) or {output.name for output in outputs if output.is_float} or set(names)
    rules = tuple(_rule(output, numbers_only) if output.name in read else (UNREAD, 0) for output in outputs)
    return replace(
        metric,
        compute=partial(agreement, rules=rules),
        reads=(),
        outputs_are=tuple(_READ_AS[rule] for rule, _ in rules),
        detail=_detail(names, rules),
        fit=None,
    )


def _rule(output: OutputInfo, numbers_only: bool) -> Rule:
    if not output.is_float:
        return EQUAL, 0
    if output.class_axis is None or numbers_only:
        return NUMBERS, 0
    return CLASSES, output.class_axis - 1 if output.class_axis > 0 else output.class_axis


def _detail(names: Sequence[str], rules: Sequence[Rule]) -> str:
    words = {CLASSES: "top class of", NUMBERS: "1 − noise-to-signal ratio of", EQUAL: "equal values of"}
    found = []
    for kind, text in words.items():
        named = [f"'{name}'" for name, (rule, _) in zip(names, rules, strict=True) if rule == kind]
        if named:
            found.append(f"{text} {', '.join(named)}")
    return "; ".join(found)


def _agreement(found: Array, wanted: Array, rule: Rule) -> float:
    kind, axis = rule
    if found.shape != wanted.shape:
        return 0.0
    if not wanted.size:
        return 1.0
    if kind == CLASSES and wanted.ndim and wanted.shape[axis] > 1:
        return float((found.argmax(axis=axis) == wanted.argmax(axis=axis)).mean())
    if kind == EQUAL:
        return float((found == wanted).mean())
    return _fidelity(found.astype(np.float64), wanted.astype(np.float64))


def _fidelity(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    finite = np.isfinite(wanted)
    if not np.array_equal(found[~finite], wanted[~finite]) or not np.isfinite(found[finite]).all():
        return 0.0  # masked by −∞ in one of them alone
    if not finite.any():
        return 1.0
    noise = float(np.mean((found[finite] - wanted[finite]) ** 2))
    return max(0.0, 1.0 - noise / max(float(np.mean(wanted[finite] ** 2)), _SILENCE))
