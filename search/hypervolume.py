"""Hypervolume of a front, and what each of many candidates would add to it.

All objectives are minimised here. The reference box below ``reference`` is cut at every coordinate of the front into
a grid whose cells are dominated as a whole or not at all (Bringmann & Friedrich 2010 discuss better asymptotics; a
front of this search has tens of points, where one array of cells beats recursion). A candidate's gain is then the
volume of the undominated cells inside its own box: one contraction for all candidates at once.

Shapes: front (n, 3), candidates (m, 3), reference (3,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def nondominated(points: Points) -> NDArray[np.bool_]:
    """Which rows no other row beats in one objective and equals or beats in the rest; equal rows all stay.

    Args:
        points: Shape (n, objectives), minimised.

    Returns:
        Shape (n,).
    """
    worse = (points[:, None, :] >= points[None, :, :]).all(axis=2)
    differs = (points[:, None, :] != points[None, :, :]).any(axis=2)
    return np.asarray(~(worse & differs).any(axis=1))


def hypervolume(front: Points, reference: Points) -> float:
    """Volume that ``front`` dominates within the box below ``reference``."""
    # A point at −∞ would gain everything that is free; a point as good as the best of each objective is enough.
    inside = front[(front < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    ideal = inside.min(axis=0)
    return float(np.prod(reference - ideal)) - float(gains(inside, reference, ideal[None, :])[0])


def gains(front: Points, reference: Points, candidates: Points) -> NDArray[np.float64]:
    """Hypervolume each candidate would add to ``front`` by itself; shape (m,)."""
    inside = front[(front < reference).all(axis=1)]
    low = candidates.min(axis=0, initial=np.inf)
    if len(inside):
        inside = inside[nondominated(inside)]
        low = np.minimum(low, inside.min(axis=0))
    low = np.minimum(low, reference)
    cuts = [np.unique(np.concatenate([[low[k], reference[k]], inside[:, k]])) for k in range(3)]
    free = np.ones([max(len(cut) - 1, 0) for cut in cuts], dtype=bool)
    for point in inside:
        i, j, k = (int(np.searchsorted(cut, value)) for cut, value in zip(cuts, point, strict=True))
        free[i:, j:, k:] = False
    widths = [
        np.clip(cut[None, 1:] - np.maximum(cut[None, :-1], candidates[:, k, None]), 0.0, None)
        for k, cut in enumerate(cuts)
    ]
    return np.asarray(np.einsum("ijk,mi,mj,mk->m", free.astype(np.float64), *widths, optimize=True))
