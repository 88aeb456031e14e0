"""Translating a config from one backend to another: the same scheme for every layer, or a reason for none.

Only equal configs are compared, so ``translate_config`` changes nothing: a scheme that the other dialect does not
offer, or layers that share a scheme there and have different ones here, are a reason, not an approximation. A start of
a search need not be equal: ``project_config`` takes the nearest that the space has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from bitfront.core import FP32, Scheme
from bitfront.lowering.layers import PrecisionGroup, QuantisableLayers
from bitfront.search.space.space import Space


def translate_config(
    layers: Mapping[str, Scheme], quantisable: QuantisableLayers, backend: str
) -> tuple[dict[str, Scheme] | None, str]:
    """Translate a config into another backend's groups.

    Args:
        layers: Layer name → scheme; a layer that is not named is FP32.
        quantisable: The network as the other backend's dialect sees it.
        backend: The other backend's name, for the reason.

    Returns:
        Group name → scheme, or None; and why it is None.
    """
    known = {layer.name for layer in quantisable.layers}
    for name, scheme in layers.items():
        if name not in known and scheme != FP32:
            return None, f"{name}: is left alone on {backend}, and cannot be {scheme.text}"
    refused = {layer.name: layer.refused for layer in quantisable.layers}
    schemes = {}
    for group in quantisable.groups:
        wanted = {layer: layers.get(layer, FP32) for layer in group.layers}
        if len(set(wanted.values())) > 1:
            shown = ", ".join(f"{layer} {scheme.text}" for layer, scheme in wanted.items())
            why = f" ({group.reason})" if group.reason else ""
            return None, f"{group.name}: its layers share one scheme on {backend}{why}, and here are {shown}"
        scheme = wanted[group.layers[0]]
        if scheme not in group.schemes:
            return None, _not_offered(group, scheme, refused, backend)
        schemes[group.name] = scheme
    return schemes, ""


def _not_offered(group: PrecisionGroup, scheme: Scheme, refused: Mapping[str, Mapping[str, str]], backend: str) -> str:
    for layer in group.layers:
        if scheme.text in refused[layer]:
            return f"{layer}: {scheme.text} is not offered on {backend}: {refused[layer][scheme.text]}"
    offered = ", ".join(offer.text for offer in group.schemes)
    return f"{group.layers[0]}: {scheme.text} is not offered on {backend}, only {offered}"


def project_config(layers: Mapping[str, Scheme], quantisable: QuantisableLayers, space: Space) -> dict[str, Scheme]:
    """Project a config onto a space: its nearest assignment, to start from, not to compare.

    Where a group's layers differ, the commonest scheme decides; where the space has no such scheme, the best of its
    precision, else of the next higher one.
    """
    members = {group.name: group.layers for group in quantisable.groups}
    assignment = {}
    for group in space.groups:
        counts = Counter(layers.get(layer, FP32) for layer in members[group.name])
        wanted = counts.most_common(1)[0][0]
        assignment[group.name] = wanted if wanted in group.schemes else group.schemes[group.lead(wanted.precision)]
    return assignment
