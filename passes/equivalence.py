"""The equivalence check that every pruning passes before it is offered: removed must compute the same as masked.

Outputs may differ by what float32 sums in another order do, and by a small share of what the pruning itself changes,
so that a bug shows in a network that hardly reacts to what is removed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bitfront.lowering.module_calls import call, named_tensors
from bitfront.passes.device import modes_kept

TOLERANCE = 1e-4  # of the largest output: float32 sums in another order stay below 1e-5
EFFECT = 1e-2  # of what masking changes


def outputs_of(module: nn.Module, examples: Mapping[str, Tensor]) -> list[Tensor]:
    """All tensors that the module returns in evaluation mode."""
    with modes_kept(module), torch.no_grad():
        module.eval()
        return tensors_in(call(module, examples))


def tensors_in(outputs: object) -> list[Tensor]:
    """The tensors of whatever a module returns, in order."""
    return list(named_tensors(outputs).values())


def difference(what: str, outputs: list[Tensor], wanted: list[Tensor], whole: list[Tensor]) -> str:
    """Reason why a network without ``what`` is not equivalent to the network with it masked; empty if it is.

    Args:
        what: Is removed, for the message.
        outputs: Of the network without it.
        wanted: Of the network in which it is masked.
        whole: Of the network as it was.
    """
    for ours, right, before in zip(outputs, wanted, whole, strict=True):
        if ours.shape != right.shape:
            return f"the output's shape changes from {tuple(right.shape)} to {tuple(ours.shape)}"
        largest = right.abs().max().item()
        gap, effect = ((right - other).abs().max().item() / max(largest, 1e-12) for other in (ours, before))
        if not gap <= min(TOLERANCE, max(EFFECT * effect, TOLERANCE / 100)):
            return f"removing {what} changes what the others compute (outputs differ by {gap:.1e} of the largest)"
    return ""
