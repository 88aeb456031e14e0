"""Bytes that files hold besides the groups' weights, learned from the files of a run.

    size = base + Σ_g r_g · (bytes_g(c_g) + layers_g · extra(kind of c_g))

A quantised layer brings nodes, scales and zero points of some hundred bytes, which is much in a small network. How many
depends on the runtime's dialect and on the layer's kind of scheme: stored in fewer bits and computed in floating point,
or computed in integers. Extras are fitted by non-negative least squares with a slight pull to 0 (Lawson and Hanson,
*Solving Least Squares Problems*, 1974), FP32 having none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls

from bitfront.core import FP32, Scheme
from bitfront.search.policy.config import DEFAULTS
from bitfront.search.space.space import Encoding, GroupSpace, Space


@dataclass(frozen=True, slots=True)
class FileOverhead:
    """Bytes besides weights.

    Attributes:
        base: In every file.
        extras: Kind of scheme → bytes a layer.
    """

    base: float = 0.0
    extras: Mapping[str, float] = field(default_factory=dict)

    def sizes(self, group: GroupSpace) -> tuple[float, ...]:
        """Bytes of each choice of a group, extras included."""
        return tuple(
            size + group.layers * self.extras.get(_kind(group, index), 0.0)
            for index, size in enumerate(group.size_bytes)
        )


NO_FILE_OVERHEAD = FileOverhead()


def fit_file_overhead(
    space: Space,
    encodings: Sequence[Encoding],
    sizes: Sequence[float],
    pull: float = DEFAULTS.sampler.surrogate.file_overhead_pull,
) -> FileOverhead:
    """Fit it to files.

    Args:
        space: What encodings are of.
        encodings: What each file is.
        sizes: Their bytes; with none, the overhead is 0.
        pull: Towards extras of 0, in observations.
    """
    if not encodings:
        return NO_FILE_OVERHEAD
    kinds = sorted({_kind(group, c) for group in space.groups for c in range(len(group.schemes))} - {""})
    counts = np.zeros((len(encodings), len(kinds)))
    for row, encoding in enumerate(encodings):
        for group, scheme, part in zip(
            space.groups, space.schemes(encoding), space.kept_fractions(encoding), strict=True
        ):
            if group.schemes[scheme] != FP32:
                counts[row, kinds.index(_kind(group, scheme))] += group.layers * part
    excess = np.array([size - space.encoding_bytes(encoding) for encoding, size in zip(encodings, sizes, strict=True)])
    left = np.block([[np.ones((len(encodings), 1)), counts], [np.zeros((len(kinds), 1)), pull * np.eye(len(kinds))]])
    found, _ = nnls(left, np.concatenate([excess, np.zeros(len(kinds))]))
    return FileOverhead(float(found[0]), dict(zip(kinds, found[1:].tolist(), strict=True)))


def _kind(group: GroupSpace, index: int) -> str:
    scheme: Scheme = group.schemes[index]
    stored = (
        "blocks" if scheme.weights.group_size is not None else "integer" if scheme.precision.is_integer else "float"
    )
    return "" if scheme == FP32 else f"{stored} in {group.compute_types[index].value}"
