"""GPTQ: round columns one after the other and let the remaining ones make up for it.

Frantar et al., "GPTQ", arXiv:2210.17323, algorithm 1. For weights W (o, k) and inputs X (k, n) it lowers

    tr((W − Ŵ) H (W − Ŵ)ᵀ),    H = 2 X Xᵀ

    symbol   shape       meaning
    W, Q     (g, o, k)   weights and their integers, one matrix per convolution group
    H        (g, k, k)   Hessian of one row's squared error, the same for every row of a group
    U        (g, k, k)   upper triangular, H⁻¹ = Uᵀ U

Column j is rounded to the nearest integer, and its error e = (w_j − ŵ_j) / U_jj is taken from the columns after it:
W_{j+1…} −= e · U_{j,j+1…}. Columns go by descending H_jj, so the ones that matter most are rounded while the others
can still follow; H gets 1 % of its mean diagonal added. Scales are given and do not move ("static groups"), so any
order is compatible with scales by group. A column whose inputs were always zero is rounded to the nearest integer: it
may matter on other inputs.

Behind rounded layers the layer sees X where the network as it was had X̃, and what it should meet is W X̃, not W X
(asymmetric calibration; Li et al., "GPTAQ", arXiv:2504.02692). In least squares this is the same problem for other
weights, ``correct_mismatch``: W + W (X̃ − X) Xᵀ (X Xᵀ)⁻¹, damped alike. On CIFAR-10 ResNet-20 with all weights at 4
bits it took the mean KL divergence from FP32 on the test images from 0.015 to 0.010. From n columns, k inputs explain
k/n of any X̃ − X by chance; ``shrinkage`` takes that share off, or few calibration samples would move a wide layer's
weights towards what no other samples show.

Weights of a sparse layer that are zero stay zero: their integers are, and what ``correct_mismatch`` or earlier columns
wanted of them is their error, which the columns after them make up for (as in SparseGPT; Frantar and Alistarh,
arXiv:2301.00774).

A row for which all this ended worse than rounding to nearest (GPTQ is greedy) keeps the nearest integers, so the result
is never worse than them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitfront.lowering.rounding.scales import INTEGER_RANGES, nearest_integers

DAMPING = 0.01
LAZY_COLUMNS = 128

Floats = NDArray[np.float64]


def gptq_integers(
    rows: Floats, hessian: Floats, scales: Floats, bits: int, zeros: NDArray[np.bool_] | None = None
) -> NDArray[np.int8]:
    """Integers for ``rows`` (g, o, k) under ``hessian`` (g, k, k).

    Args:
        rows: Weights.
        hessian: Symmetric, positive semidefinite, finite; any positive multiple gives the same integers.
        scales: Each weight's scale, broadcastable to ``rows``.
        bits: 8 or 4.
        zeros: (g, o, k), weights whose integers are to be zero; None are.
    """
    zeros = np.zeros(rows.shape, dtype=np.bool_) if zeros is None else zeros
    k = rows.shape[-1]
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=-1, kind="stable")
    scales = np.broadcast_to(scales, rows.shape)
    integers = _rounded_in_order(
        np.take_along_axis(rows, order[:, None, :], axis=2),
        np.take_along_axis(np.take_along_axis(hessian, order[:, :, None], axis=1), order[:, None, :], axis=2),
        np.take_along_axis(scales, order[:, None, :], axis=2),
        bits,
        np.take_along_axis(zeros, order[:, None, :], axis=2),
    )
    back = np.argsort(order, axis=-1)
    integers = np.take_along_axis(integers, back[:, None, :], axis=2)
    nearest = np.where(zeros, np.int8(0), nearest_integers(rows, scales, bits))
    if k == 1:
        return nearest
    worse = proxy_loss(rows - scales * integers, hessian) > proxy_loss(rows - scales * nearest, hessian)
    return np.where(worse[..., None], nearest, integers)


def correct_mismatch(rows: Floats, hessian: Floats, mismatch: Floats) -> Floats:
    """Weights that give on the inputs behind rounded layers what ``rows`` give on those of the FP32 network.

    Args:
        rows: W, (g, o, k).
        hessian: 2 X Xᵀ of the inputs behind rounded layers, (g, k, k).
        mismatch: 2 (X̃ − X) Xᵀ, (g, k, k), X̃ being the FP32 network's inputs, or the part of it that is to be met.
    """
    change = np.linalg.solve(_damped(hessian), mismatch.swapaxes(1, 2)).swapaxes(1, 2)
    moved: Floats = rows + rows @ change
    return moved


def shrinkage(columns: int, k: int) -> float:
    """The part of a fit by k inputs to so many columns that is not to be expected by chance, 0 to 1."""
    return max(0.0, 1.0 - k / columns) if columns else 0.0


def proxy_loss(error: Floats, hessian: Floats) -> Floats:
    """Each row's e H eᵀ: (g, o, k), (g, k, k) → (g, o)."""
    loss: Floats = ((error @ hessian) * error).sum(axis=-1)
    return loss


def _rounded_in_order(
    rows: Floats, hessian: Floats, scales: Floats, bits: int, zeros: NDArray[np.bool_]
) -> NDArray[np.int8]:
    low, high = INTEGER_RANGES[bits]
    factor = _inverse_factor(hessian)
    work = rows.copy()
    integers = np.empty(rows.shape, dtype=np.int8)
    k = rows.shape[-1]
    for start in range(0, k, LAZY_COLUMNS):
        stop = min(start + LAZY_COLUMNS, k)
        errors = np.empty((*rows.shape[:2], stop - start))
        for j in range(start, stop):
            column, step = work[..., j], scales[..., j]
            integer = np.where(zeros[..., j], 0.0, np.clip(np.rint(column / step), low, high))
            error = (column - step * integer) / factor[:, j, j, None]
            work[..., j + 1 : stop] -= error[..., None] * factor[:, None, j, j + 1 : stop]
            integers[..., j] = integer
            errors[..., j - start] = error
        # Columns beyond this batch get its errors in one product (the paper's lazy batch updates).
        work[..., stop:] -= errors @ factor[:, start:stop, stop:]
    return integers


def _inverse_factor(hessian: Floats) -> Floats:
    """U with H⁻¹ = Uᵀ U for the damped H, as the inverse of R in H = R Rᵀ, R upper triangular.

    R is the Cholesky factor of H with rows and columns reversed, reversed back; H itself is never inverted.
    """
    upper = np.linalg.cholesky(_damped(hessian)[:, ::-1, ::-1])[:, ::-1, ::-1]
    inverse: Floats = np.linalg.inv(upper)
    return np.triu(inverse)


def _damped(hessian: Floats) -> Floats:
    damping = DAMPING * np.diagonal(hessian, axis1=1, axis2=2).mean(axis=-1)
    damping = np.where(damping > 0, damping, 1.0)
    damped: Floats = hessian + damping[:, None, None] * np.eye(hessian.shape[-1])
    return damped
