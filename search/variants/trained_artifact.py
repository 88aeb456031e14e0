"""A network out of quantisation-aware training, kept between runs: its graph, and the ranges and scales it learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx

from bitfront.core import ConfigError, ContentStore, RecipeStep, Scheme, digest
from bitfront.lowering.lowerer import Lowerer

if TYPE_CHECKING:
    from bitfront.passes.qat import Qat
    from bitfront.passes.qat_result import QatResult


def qat_options(step: RecipeStep) -> tuple[Qat, dict[str, Scheme]]:
    """How a step of a recipe trains as quantised, and the choice of each layer it trains as.

    Raises:
        ConfigError: If they are not what such a step holds.
    """
    from bitfront.passes.qat import Qat

    if set(step.options) != {"qat", "choices"}:
        raise ConfigError(
            f"recipe, pass 'qat': expected qat and schemes, got {', '.join(step.options)}",
            "the recipe was edited or is of another version: make it again with a search",
        )
    texts = step.options["choices"]
    if not isinstance(texts, Mapping) or not all(isinstance(text, str) for text in texts.values()):
        raise ConfigError(
            f"recipe, pass 'qat': expected each layer's scheme as text, got {texts!r}",
            "the recipe was edited: give the run's own config",
        )
    return Qat.from_json(step.options["qat"]), {name: Scheme.parse(text) for name, text in texts.items()}


def values_of(result: QatResult) -> dict[str, Any]:
    """What ``lowerer_of`` needs, as tensors and numbers."""
    import torch

    proto = result.reference.proto.SerializeToString(deterministic=True)
    return {
        "network": torch.frombuffer(bytearray(proto), dtype=torch.uint8),
        "ranges": {name: [float(bound) for bound in bounds] for name, bounds in result.ranges.items()},
        "scales": {name: torch.from_numpy(scales) for name, scales in result.scales.items()},
    }


def lowerer_of(values: Mapping[str, Any], before: Lowerer, store: ContentStore) -> Lowerer:
    """Writes the trained network.

    Args:
        values: Of ``values_of``.
        before: The lowerer it was trained with.
        store: Where rounded weights of other schemes are kept.
    """
    proto = onnx.load_from_string(values["network"].numpy().tobytes())
    fingerprint = digest(proto.SerializeToString(deterministic=True))
    return Lowerer(
        replace(before.reference, proto=proto, fingerprint=fingerprint),
        before.dialect,
        None,
        before.settings,
        store,
        calibration_digest=before.calibration_digest,
        ranges={name: (low, high) for name, (low, high) in values["ranges"].items()},
        scales={name: scales.numpy() for name, scales in values["scales"].items()},
    )
