"""A network out of quantisation-aware training, kept between runs: its graph, and the ranges and scales it learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx

from bitfront.lowering.lowerer import Lowerer
from bitfront.precision import ContentStore, digest

if TYPE_CHECKING:
    from bitfront.passes.qat_result import QatResult


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
        store: Where rounded weights of other choices are kept.
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
