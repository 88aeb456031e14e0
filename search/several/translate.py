"""One backend's config on another: the same choice for every layer, or the reason why it cannot be had there.

What is compared must be the same, so ``translate`` changes nothing: a choice that the other dialect does not offer, or
layers that share a choice there and have different ones here, are a reason, not an approximation. What a search starts
from need not be the same: ``adapt`` takes the nearest that the space has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from bitfront.lowering.inventory import Group, Inventory
from bitfront.precision import FP32, LayerChoice
from bitfront.search.proposals.space import Space


def translate(
    layers: Mapping[str, LayerChoice], inventory: Inventory, backend: str
) -> tuple[dict[str, LayerChoice] | None, str]:
    """A config in another backend's groups.

    Args:
        layers: Layer name → choice; a layer that is not named is FP32.
        inventory: The network as the other backend's dialect sees it.
        backend: The other backend's name, for the reason.

    Returns:
        Group name → choice, or None; and why it is None.
    """
    known = {layer.name for layer in inventory.layers}
    for name, choice in layers.items():
        if name not in known and choice != FP32:
            return None, f"{name}: is left alone on {backend}, and cannot be {choice.text}"
    refused = {layer.name: layer.refused for layer in inventory.layers}
    choices = {}
    for group in inventory.groups:
        wanted = {layer: layers.get(layer, FP32) for layer in group.layers}
        if len(set(wanted.values())) > 1:
            shown = ", ".join(f"{layer} {choice.text}" for layer, choice in wanted.items())
            why = f" ({group.reason})" if group.reason else ""
            return None, f"{group.name}: its layers share one choice on {backend}{why}, and here are {shown}"
        choice = wanted[group.layers[0]]
        if choice not in group.choices:
            return None, _not_offered(group, choice, refused, backend)
        choices[group.name] = choice
    return choices, ""


def _not_offered(group: Group, choice: LayerChoice, refused: Mapping[str, Mapping[str, str]], backend: str) -> str:
    for layer in group.layers:
        if choice.text in refused[layer]:
            return f"{layer}: {choice.text} is not offered on {backend}: {refused[layer][choice.text]}"
    offered = ", ".join(offer.text for offer in group.choices)
    return f"{group.layers[0]}: {choice.text} is not offered on {backend}, only {offered}"


def adapt(layers: Mapping[str, LayerChoice], inventory: Inventory, space: Space) -> dict[str, LayerChoice]:
    """The assignment of a space that is nearest to a config: to start from, not to compare.

    Where a group's layers differ, the commonest choice decides; where the space has no such choice, the best of its
    precision, else of the next higher one.
    """
    members = {group.name: group.layers for group in inventory.groups}
    assignment = {}
    for group in space.groups:
        counts = Counter(layers.get(layer, FP32) for layer in members[group.name])
        wanted = counts.most_common(1)[0][0]
        assignment[group.name] = wanted if wanted in group.choices else group.choices[group.lead(wanted.precision)]
    return assignment
