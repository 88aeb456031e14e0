"""Why FP32 as given is all there is, where a network has no layers or none of them may take another choice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.weight_holders import left_as_they_are
from bitfront.precision import Precision

_MOST = 20


def why_alone(lowerer: Lowerer, precisions: Sequence[Precision], dropped: Iterable[str] = ()) -> tuple[str, ...]:
    """Sentences, the first of which says that nothing can be decided.

    Args:
        lowerer: Of the network.
        precisions: What layers were allowed to take.
        dropped: What layers might have taken, with why they may not.
    """
    inventory = lowerer.inventory
    if not inventory.layers:
        first = "The network has no layer that can take another precision: FP32 as given is the only point."
        reasons = [f"{name}: {why}" for name, why in left_as_they_are(lowerer.reference.proto, inventory).items()]
        reasons = reasons or ["none of its operators holds weights"]
    else:
        first = "No layer may take another precision than FP32: FP32 as given is the only point."
        if set(precisions) <= {Precision.FP32}:
            reasons = ["no other precision was asked for"]
        else:
            refused = [f"{a.name} {text}: {why}" for a in inventory.layers for text, why in a.refused.items()]
            reasons = list(dict.fromkeys((*dropped, *refused)))
    more = [f"and {len(reasons) - _MOST} more"] if len(reasons) > _MOST else []
    return (first, *reasons[:_MOST], *more)
