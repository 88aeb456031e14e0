"""Times of layers, whatever the runtime fuses with them."""

from __future__ import annotations

import math

from bitfront.backends.ort.cpu import OrtCpuBackend
from bitfront.lowering.coverage import weight_holders
from bitfront.search.measuring.operator_times import operator_times
from tests.sensitivity.test_propagated import INPUTS, lowerer


def test_convolutions_that_are_fused_have_their_time() -> None:
    """With an activation, and with a sum and the activation behind it."""
    made = lowerer()
    holders = weight_holders(made.reference, made.quantisable)
    shares = operator_times(made, OrtCpuBackend(), INPUTS, holders, threads=1)
    assert shares is not None
    assert all(shares.named[holder.name] > 0 for holder in holders), shares.named
    assert "Conv" not in shares.others
    assert math.isclose(sum(shares.named.values()) + sum(shares.others.values()), 1)
