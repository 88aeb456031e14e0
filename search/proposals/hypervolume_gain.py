"""Hypervolume that each of many candidates would add to a front, all at once.

All objectives are minimised here. The box between the best coordinates and ``reference`` is cut at every coordinate
of the front into a grid whose cells are dominated as a whole or not at all. A candidate's gain is the volume of the
undominated cells inside its own box: one contraction for all candidates, where ``core.pareto.hypervolume`` would
run once for each of them.

Shapes: front (n, 3), candidates (m, 3), reference (3,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def hypervolume_gains(front: Points, reference: Points, candidates: Points) -> NDArray[np.float64]:
    """Hypervolume each candidate would add to ``front`` by itself, within the box below ``reference``.

    Args:
        front: Points of any rank; those not below ``reference`` in all objectives don't count.
        reference: The worst corner.
        candidates: Points to judge.

    Returns:
        Shape (m,), ≥ 0.
    """
    inside = front[(front < reference).all(axis=1)]
    corner = np.minimum(np.concatenate([inside, candidates]).min(axis=0, initial=np.inf), reference)
    cuts = [np.unique([corner[k], reference[k], *inside[:, k]]) for k in range(3)]
    free = np.ones([len(cut) - 1 for cut in cuts])
    for point in inside:
        i, j, k = (int(np.searchsorted(cut, value)) for cut, value in zip(cuts, point, strict=True))
        free[i:, j:, k:] = 0.0
    # widths[k][m, i]: how much of slab i along objective k lies inside candidate m's box
    widths = [
        np.clip(cut[None, 1:] - np.maximum(cut[None, :-1], candidates[:, k, None]), 0.0, None)
        for k, cut in enumerate(cuts)
    ]
    return np.asarray(np.einsum("ijk,mi,mj,mk->m", free, *widths, optimize=True))
