"""Reasons why FP32 is the only point, where a network has no layers or none may take another scheme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bitfront.core import Precision
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.unquantised import unquantised_weights

_MOST = 20


def why_only_fp32(lowerer: Lowerer, precisions: Sequence[Precision], dropped: Iterable[str] = ()) -> tuple[str, ...]:
    """Sentences why FP32 is the only point; the first says that it is.

    Args:
        lowerer: Of the network.
        precisions: What layers were allowed to take.
        dropped: What layers might have taken, with why they may not.
    """
    quantisable = lowerer.quantisable
    if not quantisable.layers:
        first = "The network has no layer that can take another precision: FP32 as given is the only point."
        left = unquantised_weights(lowerer.reference.proto, quantisable)
        reasons = left.lines() or ["none of its operators holds weights"]
    else:
        first = "No layer may take another precision than FP32: FP32 as given is the only point."
        if set(precisions) <= {Precision.FP32}:
            reasons = ["no other precision was asked for"]
        else:
            refused = [f"{a.name} {text}: {why}" for a in quantisable.layers for text, why in a.refused.items()]
            reasons = list(dict.fromkeys((*dropped, *refused)))
    more = [f"and {len(reasons) - _MOST} more"] if len(reasons) > _MOST else []
    return (first, *reasons[:_MOST], *more)
