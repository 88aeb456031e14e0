"""Feature distillation: layers' inputs in student and teacher compared, a term of the distillation loss.

    mean over layers of ‖adapter(student's) − teacher's‖² / ‖teacher's‖²

Hints after Romero et al. (FitNets, arXiv:1412.6550, equation 3), relative to the teacher's size. A layer's input is
compared rather than its output: of a network that lost a branch only the layers are modules still, and between two of
them lie the activations and sums that matter. Where widths differ a 1×1 adapter is trained along and thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.core import ConfigError, Inputs
from bitfront.lowering.module_calls import call
from bitfront.passes.device import modes_kept
from bitfront.passes.prune_counts import example_tensors
from bitfront.passes.prune_graph import LAYERS

SHARED = "*"  # every convolution and linear layer of both networks that reads tensors of one shape in both


@contextmanager
def layer_inputs(module: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Layer path → its input in the last forward pass inside; layers that did not run are missing."""
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(layer: nn.Module, arguments: Any) -> None:  # noqa: ARG001 - torch's signature
            if arguments:
                found[path] = arguments[0]

        return hook

    hooks = [module.get_submodule(path).register_forward_pre_hook(keep(path)) for path in paths]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


class FeatureMatch:
    """The feature term of a batch, by the module's formula, from layers' inputs in student and teacher.

    Args:
        paths: Of the layers; none at all is allowed, and then nothing is compared.
        adapters: One for each, from the student's shape to the teacher's.
    """

    def __init__(self, paths: Sequence[str], adapters: Sequence[nn.Module]) -> None:
        self.paths = tuple(paths)
        self.adapters = nn.ModuleList(adapters)

    def __call__(self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
        """The mismatch, a scalar with a gradient; both map layer path → input (n, …)."""
        terms = []
        for path, adapter in zip(self.paths, self.adapters, strict=True):
            difference = adapter(ours[path]) - theirs[path]
            terms.append(difference.square().mean() / theirs[path].square().mean().clamp_min(1e-12))
        return torch.stack(terms).mean()


def feature_match(paths: Sequence[str], student: nn.Module, teacher: nn.Module, inputs: Inputs) -> FeatureMatch:
    """The feature term for the layers at ``paths``; ``SHARED`` alone is every layer that needs no adapter.

    Args:
        paths: Of layers in both networks.
        student: Left as it is.
        teacher: On the same device; left as it is.
        inputs: A few samples are run through both.

    Raises:
        ConfigError: If one of the networks lacks or never calls a layer, or shapes differ in more than channels.
    """
    every = tuple(paths) == (SHARED,)
    found = []
    for name, module in (("student", student), ("teacher", teacher)):
        known = dict(module.named_modules())
        wanted = [path for path, part in known.items() if isinstance(part, LAYERS)] if every else paths
        missing = [path for path in wanted if path not in known]
        if missing:
            raise ConfigError(
                f"distillation: the {name} has no layer '{missing[0]}'",
                "name modules that both networks have, or leave features out",
            )
        with modes_kept(module), torch.no_grad(), layer_inputs(module, wanted) as read:
            call(module.eval(), example_tensors(module, inputs))
        unread = [path for path in wanted if path not in read]
        if unread and not every:
            raise ConfigError(
                f"distillation: the {name} never calls layer '{unread[0]}' as a module",
                "name convolutions and linear layers: where branches were removed, blocks are modules no more",
            )
        found.append(read)
    ours, theirs = found
    if every:
        paths = [path for path, tensor in ours.items() if path in theirs and tensor.shape == theirs[path].shape]
    return FeatureMatch(paths, [_adapter(path, ours[path], theirs[path]) for path in paths])


class LinearAdapter(nn.Module):
    """A 1×1 map from one number of channels to another, for (n, c, …) and (n, tokens, c) alike.

    Args:
        inputs: Channels of the student.
        outputs: Channels of the teacher.
        axis: Of the channels.
    """

    def __init__(self, inputs: int, outputs: int, axis: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.axis = axis

    def forward(self, features: Tensor) -> Tensor:
        """Replaces the channels along ``axis``."""
        mapped: Tensor = self.linear(features.movedim(self.axis, -1))
        return mapped.movedim(-1, self.axis)


def _adapter(path: str, ours: Tensor, theirs: Tensor) -> nn.Module:
    if ours.shape == theirs.shape:
        return nn.Identity()
    axes = [
        axis for axis in range(1, ours.dim()) if ours.dim() == theirs.dim() and ours.shape[axis] != theirs.shape[axis]
    ]
    if len(axes) != 1 or axes[0] not in (1, ours.dim() - 1):
        raise ConfigError(
            f"distillation: layer '{path}' reads {tuple(ours.shape)} in the student and {tuple(theirs.shape)} in the "
            "teacher; expected shapes that differ in channels alone",
            "leave the layer out of feature_layers",
        )
    return LinearAdapter(ours.shape[axes[0]], theirs.shape[axes[0]], axes[0])
