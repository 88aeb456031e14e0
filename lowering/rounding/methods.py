"""The registries of ways to find scales and ways to round: a further one of either is one entry, and no other change.

A ``WeightScheme`` names one of each. A scale method is given rows of weights and answers with a scale for each row; a
rounding method is given a layer's whole problem and answers with its integers, under scales that the problem finds for
it (GPTQ moves the weights first). See ``docs/adding-a-rounding-method.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bitfront.core import LoweringError, UsageError, WeightScheme
from bitfront.lowering.rounding.bias_overflow import ZERO_WEIGHTS
from bitfront.lowering.rounding.gptq import correct_mismatch, gptq_integers
from bitfront.lowering.rounding.matrix import MatrixView
from bitfront.lowering.rounding.scales import absmax_scales, groups_of, mse_scales, nearest_integers

# A weight of which so much is zero was made sparse: its zeros stay.
SPARSE = 0.25

# Rows (n, k), bits, and the importance of each weight (n, k) or None → scales (n,).
FindScales = Callable[[NDArray[np.float64], int, NDArray[np.float64] | None], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleMethod:
    """A way to find the scales of weights.

    Attributes:
        name: What ``WeightScheme.scale_method`` calls it.
        find: Rows (n, k), bits and importance → scales (n,), positive. The importance of a weight is the mean square of
            the inputs that it is multiplied by, up to a factor, (n, k); None where ``uses_calibration`` is false.
        uses_calibration: Whether ``find`` reads the importance. Layers are then taken in the network's order.
    """

    name: str
    find: FindScales
    uses_calibration: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingProblem:
    """Weight of one layer, to be rounded, with its targets.

    Attributes:
        view: How the weight is read as rows.
        rows: float64 (groups, o, k), the weight.
        bits: Of an integer: 8 or 4, or fewer than those that its storage has.
        group_size: Weights per scale along k; None is one scale per channel.
        min_scales: Lower limits of the scales, (channels,), by which channels of zeros get theirs; None without limits.
            Never with ``group_size``.
        scale_method: How ``find_scales`` finds them.
        hessian: float64 (groups, k, k), 2 X Xᵀ of the inputs X behind the rounded layers before; None for methods
            without calibration.
        mismatch: float64 (groups, k, k), 2 (X̃ − X) Xᵀ, X̃ being the inputs in the FP32 network, times ``shrinkage``;
            None likewise.
    """

    view: MatrixView
    rows: NDArray[np.float64]
    bits: int
    group_size: int | None
    min_scales: NDArray[np.float64] | None
    scale_method: ScaleMethod
    hessian: NDArray[np.float64] | None
    mismatch: NDArray[np.float64] | None

    def find_scales(self) -> NDArray[np.float32]:
        """Scales of the rows as in ``RoundedWeight``: (channels,), or (channels, groups along k)."""
        matrix, importance = self.view.channel_rows(self.rows), self._importance()
        if self.group_size is not None:
            weighted = None if importance is None else groups_of(importance, self.group_size)
            found = self.scale_method.find(groups_of(matrix, self.group_size), self.bits, weighted)
            return found.reshape(len(matrix), -1)
        scales = self.scale_method.find(matrix, self.bits, importance)
        if self.min_scales is None:
            return scales
        # Rounded up: the nearest float32 may lie below the limit.
        limits = np.nextafter(self.min_scales.astype(np.float32), np.float32(np.inf))
        free = (self.min_scales > 0) & ~matrix.any(axis=1)
        return np.where(free, limits * np.float32(ZERO_WEIGHTS), np.where(self.min_scales > scales, limits, scales))

    def element_scales(self, scales: NDArray[np.float32]) -> NDArray[np.float32]:
        """Each weight's scale, broadcastable to ``rows``, of what ``find_scales`` returned."""
        return self.view.element_scales(scales, self.group_size)

    def _importance(self) -> NDArray[np.float64] | None:
        if not self.scale_method.uses_calibration:
            return None
        assert self.hessian is not None, "a method with calibration is given the Hessian"
        diagonal = np.diagonal(self.hessian, axis1=1, axis2=2)
        return self.view.channel_rows(np.broadcast_to(diagonal[:, None, :], self.rows.shape))


# Integers (groups, o, k), and scales as in ``RoundedWeight``.
Solution = tuple[NDArray[np.int8], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingMethod:
    """A way to round weights to integers.

    Attributes:
        name: What ``WeightScheme.rounding_method`` calls it.
        round: A layer's problem → its integers and scales.
        uses_calibration: Whether ``round`` needs the Hessian. Layers are then taken in the network's order, and each is
            given a bias correction.
    """

    name: str
    round: Callable[[RoundingProblem], Solution]
    uses_calibration: bool


def round_to_nearest(problem: RoundingProblem) -> Solution:
    """The nearest integer of each weight."""
    scales = problem.find_scales()
    return nearest_integers(problem.rows, problem.element_scales(scales), problem.bits), scales


def round_by_gptq(problem: RoundingProblem) -> Solution:
    """Integers by GPTQ, for the weights that make up for the mismatch of activations, under scales of these."""
    hessian, mismatch = problem.hessian, problem.mismatch
    assert hessian is not None, "a method with calibration is given the Hessian"
    assert mismatch is not None, "and the mismatch"
    zeros = problem.rows == 0 if np.mean(problem.rows == 0) >= SPARSE else None
    wanted = correct_mismatch(problem.rows, hessian, mismatch)
    kept = wanted if zeros is None else np.where(zeros, 0.0, wanted)
    scales = replace(problem, rows=kept).find_scales()
    steps = problem.element_scales(scales).astype(np.float64)
    return gptq_integers(wanted, hessian, steps, problem.bits, zeros), scales


SCALE_METHODS: dict[str, ScaleMethod] = {
    "absmax": ScaleMethod(name="absmax", find=lambda rows, bits, _: absmax_scales(rows, bits), uses_calibration=False),
    "mse": ScaleMethod(name="mse", find=mse_scales, uses_calibration=False),
}
ROUNDING_METHODS: dict[str, RoundingMethod] = {
    "nearest": RoundingMethod(name="nearest", round=round_to_nearest, uses_calibration=False),
    "gptq": RoundingMethod(name="gptq", round=round_by_gptq, uses_calibration=True),
}

M = TypeVar("M", ScaleMethod, RoundingMethod)


def register(method: ScaleMethod | RoundingMethod) -> None:
    """Add a method of a package of one's own to its registry.

    Raises:
        UsageError: If another one has its name.
    """
    if isinstance(method, ScaleMethod):
        _add(SCALE_METHODS, method)
    else:
        _add(ROUNDING_METHODS, method)


def _add(registry: dict[str, M], method: M) -> None:
    if registry.setdefault(method.name, method) != method:
        raise UsageError(f"a method '{method.name}' is registered already", "give yours another name")


def methods_for(weights: WeightScheme) -> tuple[ScaleMethod, RoundingMethod]:
    """The two methods that a weight scheme names.

    Raises:
        LoweringError: If one is not registered.
    """
    return _find(SCALE_METHODS, "scale", weights.scale_method), _find(
        ROUNDING_METHODS, "rounding", weights.rounding_method
    )


def uses_calibration(weights: WeightScheme) -> bool:
    """Whether rounding weights so reads calibration inputs.

    Raises:
        LoweringError: If a method is not registered.
    """
    return any(method.uses_calibration for method in methods_for(weights))


def _find(registry: dict[str, M], kind: str, name: str) -> M:
    if name in registry:
        return registry[name]
    close = get_close_matches(name, registry, n=1)
    raise LoweringError(
        f"no {kind} method is called '{name}'",
        f"did you mean {close[0]}?" if close else f"use one of {', '.join(registry)}, or import what registers it",
    )
