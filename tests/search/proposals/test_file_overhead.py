"""What files hold besides weights, learned from files."""

from __future__ import annotations

import numpy as np
import pytest

from bitfront.core import Precision
from bitfront.search.proposals.file_overhead import NO_FILE_OVERHEAD, fit_file_overhead
from bitfront.search.proposals.ilp_instance import IlpInstance
from bitfront.search.proposals.latency_model import fit_encodings
from bitfront.search.space.space import Encoding, Space
from tests.search.proposals.spaces import prunable_chain

BASE, HALF, INTEGER = 2000.0, 100.0, 450.0


def file_bytes(space: Space, encoding: Encoding) -> float:
    """A file with so much besides its weights."""
    extra = {Precision.FP32: 0.0, Precision.FP16: HALF, Precision.INT8: INTEGER, Precision.INT4: INTEGER}
    rows = zip(space.groups, space.schemes(encoding), space.kept_fractions(encoding), strict=True)
    return (
        space.encoding_bytes(encoding) + BASE + sum(part * extra[group.schemes[c].precision] for group, c, part in rows)
    )


def some(space: Space, count: int, seed: int) -> list[Encoding]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        schemes = tuple(int(rng.integers(len(group.schemes))) for group in space.groups)
        levels = tuple(int(rng.integers(len(prune.sparsities))) for prune in space.prunes)
        found.append(space.canonical((*schemes, *levels)))
    return found


def test_sizes_of_other_candidates_are_predicted() -> None:
    """Base and extras are found from a dozen files, and the problem's sizes are those of files it has not seen."""
    space = prunable_chain(8)
    encodings = some(space, 12, seed=1)
    overhead = fit_file_overhead(space, encodings, [file_bytes(space, encoding) for encoding in encodings])
    assert overhead.base == pytest.approx(BASE, rel=0.05)
    problem = IlpInstance.of(space, fit_encodings(space, [], []), overhead)
    for encoding in some(space, 20, seed=2):
        assert problem.size(encoding) == pytest.approx(file_bytes(space, encoding), abs=20)


def test_one_file_sets_the_base_alone() -> None:
    """FP32's file says nothing of extras; without files nothing is known."""
    space = prunable_chain(8)
    fp32 = space.encode(space.uniform(Precision.FP32))
    overhead = fit_file_overhead(space, [fp32], [file_bytes(space, fp32)])
    assert overhead.base == pytest.approx(BASE)
    assert not any(overhead.extras.values())
    assert fit_file_overhead(space, [], []) == NO_FILE_OVERHEAD
