"""What files hold besides the groups' weights, learned from the files of a run.

    size = base + Σ_g r_g · (bytes_g(c_g) + layers_g · extra(kind of c_g))

A quantised layer brings nodes, scales and zero points of some hundred bytes, which is much in a small network. How many
depends on the runtime's dialect and on the layer's kind of choice: stored in fewer bits and computed in floating point,
or computed in integers. Extras are fitted by non-negative least squares with a slight pull to 0 (Lawson and Hanson,
*Solving Least Squares Problems*, 1974), FP32 having none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls

from bitfront.precision import FP32, LayerChoice
from bitfront.search.proposals.space import Code, GroupSpace, Space

_PULL = 0.03  # of an observation, for every extra


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes besides weights.

    Attributes:
        base: In every file.
        extras: Kind of choice → bytes a layer.
    """

    base: float = 0.0
    extras: Mapping[str, float] = field(default_factory=dict)

    def sizes(self, group: GroupSpace) -> tuple[float, ...]:
        """Bytes of each choice of a group, extras included."""
        return tuple(
            size + group.layers * self.extras.get(_kind(group, index), 0.0)
            for index, size in enumerate(group.size_bytes)
        )


NO_OVERHEAD = Overhead()


def fit_overhead(space: Space, codes: Sequence[Code], sizes: Sequence[float]) -> Overhead:
    """Fit it to files.

    Args:
        space: What codes are of.
        codes: What each file is.
        sizes: Their bytes; with none, the overhead is 0.
    """
    if not codes:
        return NO_OVERHEAD
    kinds = sorted({_kind(group, c) for group in space.groups for c in range(len(group.choices))} - {""})
    counts = np.zeros((len(codes), len(kinds)))
    for row, code in enumerate(codes):
        for group, choice, part in zip(space.groups, space.choices(code), space.remaining(code), strict=True):
            if group.choices[choice] != FP32:
                counts[row, kinds.index(_kind(group, choice))] += group.layers * part
    excess = np.array([size - space.code_bytes(code) for code, size in zip(codes, sizes, strict=True)])
    left = np.block([[np.ones((len(codes), 1)), counts], [np.zeros((len(kinds), 1)), _PULL * np.eye(len(kinds))]])
    found, _ = nnls(left, np.concatenate([excess, np.zeros(len(kinds))]))
    return Overhead(float(found[0]), dict(zip(kinds, found[1:].tolist(), strict=True)))


def _kind(group: GroupSpace, index: int) -> str:
    choice: LayerChoice = group.choices[index]
    stored = "blocks" if choice.block_size is not None else "integer" if choice.precision.is_integer else "float"
    return "" if choice == FP32 else f"{stored} in {group.arithmetic[index].value}"
