"""Small spaces and inventories that several tests share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from bitfront.core import FP16, FP32, SCHEMES, Scheme
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.layers import Layer, PrecisionGroup, QuantisableLayers
from bitfront.search.space.pruning import PruneVariable
from bitfront.search.space.space import Encoding, GroupSpace, Space
from bitfront.sensitivity.table import SensitivityRow, SensitivityTable

INT8, INT8_NEAREST = SCHEMES["int8:mse"], SCHEMES["int8:nearest"]
INT4, INT4_WEIGHTS, INT4_BLOCK = (SCHEMES[f"int4:{rest}"] for rest in ("gptq", "mse:weight-only", "mse:block32"))


def chain(groups: int, seed: int = 0, fp16: ComputeType = ComputeType.FP32) -> Space:
    """A chain of groups with four schemes each; losses over four decades, seeded; ``fp16`` is what FP16 runs in."""
    rng = np.random.default_rng(seed)
    spaces = []
    for g in range(groups):
        low = 10.0 ** rng.uniform(-5, -2)
        size = int(rng.integers(100, 1000)) * 32
        spaces.append(
            GroupSpace(
                name=f"g{g}",
                schemes=(FP32, FP16, INT8, INT4),
                losses=(0.0, low / 100, low, 30 * low),
                size_bytes=(size, size // 2, size // 4, size // 8),
                compute_types=(ComputeType.FP32, fp16, ComputeType.INT8, ComputeType.INT8),
            )
        )
    return Space(groups=tuple(spaces), edges=tuple((g, g + 1) for g in range(groups - 1)))


def channels(name: str, reader: str, loss: float = 0.01) -> PruneVariable:
    """Output channels of layer ``name``, which ``reader`` reads: rows of the one and columns of the other go."""
    left = (1.0, 0.75, 0.5)
    return PruneVariable(
        name=name, sparsities=(0.0, 0.25, 0.5), losses=(0.0, loss, 4 * loss), parts={name: left, reader: left}
    )


def branch(name: str, *layers: str, loss: float = 0.05) -> PruneVariable:
    """A residual branch with all its layers."""
    return PruneVariable(
        name=name, sparsities=(0.0, 1.0), losses=(0.0, loss), parts=dict.fromkeys(layers or (name,), (1.0, 0.0))
    )


def prunable_chain(groups: int, seed: int = 0, fp16: ComputeType = ComputeType.FP32) -> Space:
    """``chain`` of at least 5 groups, with channels between every two from the first on, and a branch of two of them.

    The branch ``b`` is made of ``g2`` and ``g3``: the channels between those are gone with it.
    """
    rng = np.random.default_rng([seed, 1])
    space = chain(groups, seed, fp16)
    prunes = [channels(f"g{g}", f"g{g + 1}", 10.0 ** rng.uniform(-4, -2)) for g in range(0, groups - 1, 2)]
    return replace(space, prunes=(*prunes, branch("b", "g2", "g3", loss=10.0 ** rng.uniform(-3, -1))))


def everything(space: Space) -> list[Encoding]:
    """Every canonical index tuple, baseline-only schemes included."""
    widths = [*(len(group.schemes) for group in space.groups), *(len(prune.sparsities) for prune in space.prunes)]
    return [encoding for encoding in product(*map(range, widths)) if space.canonical(encoding) == encoding]


def quantisable(
    schemes: Mapping[str, tuple[Scheme, ...]], edges: tuple[tuple[int, int], ...] = ()
) -> QuantisableLayers:
    """One layer a group, except that a group named ``a+1`` has layers ``a`` and ``a'``."""
    layers, groups = [], []
    for name, offered in schemes.items():
        first = name.removesuffix("+1")
        names = (first, f"{first}'") if name.endswith("+1") else (first,)
        groups.append(PrecisionGroup(name=name, layers=names, reason="", schemes=offered))
        layers += [
            Layer(
                name=layer,
                node=layer,
                op="Conv",
                weight=f"{layer}.weight",
                weight_shape=(8, 8, 3, 3),
                channel_axis=0,
                conv_groups=1,
                parameters=576,
                schemes=offered,
                refused={},
            )
            for layer in names
        ]
    return QuantisableLayers(layers=tuple(layers), groups=tuple(groups), edges=edges, left_alone={})


def table(rows: dict[str, dict[Scheme, float]], dropped: dict[tuple[str, Scheme], str]) -> SensitivityTable:
    """A table with the given losses; ``dropped`` rows have NaN."""
    kept = [
        SensitivityRow(group=group, scheme=scheme, single_layer=loss, leave_one_out=loss, loss=loss)
        for group, losses in rows.items()
        for scheme, loss in losses.items()
    ]
    gone = [
        SensitivityRow(
            group=group,
            scheme=scheme,
            single_layer=float("nan"),
            leave_one_out=float("nan"),
            loss=float("nan"),
            dropped=reason,
        )
        for (group, scheme), reason in dropped.items()
    ]
    return SensitivityTable(divergence_metric="kl", samples=8, rows=tuple(kept + gone))


def size_of(_layer: str, scheme: Scheme) -> int:
    """Bytes by storage width, a little more with a scale per block."""
    return 576 * scheme.precision.bits // 8 + (72 if scheme.weights.group_size else 0)
