"""``qat``: quantisation-aware training of the artifact that a dialect writes (``passes.qat``).

What it leaves is a graph with the ranges and scales it learned, which are kept in the run's store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from bitfront.core import ConfigError, RecipeStep, Scheme, digest
from bitfront.search.passes.base import ArtifactPass, PassContext

if TYPE_CHECKING:
    from bitfront.lowering.lowerer import Lowerer
    from bitfront.passes.qat import Qat
    from bitfront.passes.qat_result import QatResult
    from bitfront.passes.train import Supervision, Trained


@dataclass(frozen=True, kw_only=True)
class QatPass(ArtifactPass):
    """Quantisation-aware training with the given network as the teacher."""

    name: ClassVar[str] = "qat"
    summary: ClassVar[str] = "train the quantised model"

    def step(self, context: PassContext, schemes: Mapping[str, Scheme], steps: int) -> RecipeStep:
        """Step that trains the artifact of layer name → scheme."""
        from bitfront.passes.qat import TRAINING, Qat

        options = Qat(training=replace(TRAINING, steps=steps, augment=context.augmentation))
        texts = {name: scheme.text for name, scheme in schemes.items()}
        return RecipeStep(name=self.name, options={"qat": options.to_json(), "choices": texts})

    def steps_of(self, step: RecipeStep) -> int:
        """Training steps by the options."""
        return int(step.options["qat"]["training"]["steps"])

    def train(
        self, step: RecipeStep, lowerer: Lowerer, context: PassContext, supervision: Supervision | None = None
    ) -> tuple[dict[str, Any], Trained]:
        """Train the artifact that ``lowerer`` writes, with the given network as the teacher."""
        from bitfront.passes.device import best_device

        options, schemes = qat_options(step)
        result = options.apply(
            lowerer, schemes, context.data, teacher=context.base, supervision=supervision, device=best_device()
        )
        return _values(result), result.trained

    def lowerer(self, values: Mapping[str, Any], before: Lowerer, context: PassContext) -> Lowerer:
        """Lowerer that writes the trained network."""
        import onnx

        from bitfront.lowering.lowerer import Lowerer

        proto = onnx.load_from_string(values["network"].numpy().tobytes())
        fingerprint = digest(proto.SerializeToString(deterministic=True))
        return Lowerer(
            replace(before.reference, proto=proto, fingerprint=fingerprint),
            before.dialect,
            None,
            before.settings,
            context.store,
            calibration_digest=before.calibration_digest,
            ranges={name: (low, high) for name, (low, high) in values["ranges"].items()},
            scales={name: scales.numpy() for name, scales in values["scales"].items()},
        )


def qat_options(step: RecipeStep) -> tuple[Qat, dict[str, Scheme]]:
    """The training's options, and the scheme of each layer by name, that a step of a recipe holds.

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


def _values(result: QatResult) -> dict[str, Any]:
    """Values that ``QatPass.lowerer`` needs, as tensors and numbers."""
    import torch

    proto = result.reference.proto.SerializeToString(deterministic=True)
    return {
        "network": torch.frombuffer(bytearray(proto), dtype=torch.uint8),
        "ranges": {name: [float(bound) for bound in bounds] for name, bounds in result.ranges.items()},
        "scales": {name: torch.from_numpy(scales) for name, scales in result.scales.items()},
    }
