"""PyTorch modules as networks of the zoo: random weights of a fixed seed, exported as a person would export them."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from bitfront.experiments.zoo.network import MakeFeed, ZooNetwork

SEED = 0


def torch_network(
    name: str,
    kind: str,
    make: Callable[[], nn.Module],
    feed: MakeFeed,
    *,
    axes: Mapping[str, int | None] | None = None,
    fixed: bool = False,
    dtype: torch.dtype = torch.float32,
    opset: int = 18,
    outputs: tuple[str, ...] | None = None,
) -> ZooNetwork:
    """A module as a network of the zoo, exported when its file is asked for.

    Args:
        name: As of ``ZooNetwork``.
        kind: As of ``ZooNetwork``.
        make: Makes the module; its weights follow from ``SEED``.
        feed: As of ``ZooNetwork``; its keys are the arguments of ``forward``, in order.
        axes: As of ``ZooNetwork``.
        fixed: Export with a batch of 1 instead of an open one.
        dtype: What weights and floating inputs are converted to.
        opset: Of the file.
        outputs: Names of the outputs.
    """
    return ZooNetwork(
        name=name,
        origin="torch",
        kind=kind,
        model=lambda site: _exported(make, feed, axes or {}, fixed, dtype, opset, outputs),  # noqa: ARG005
        feed=feed,
        axes=axes or {},
    )


def _exported(
    make: Callable[[], nn.Module],
    feed: MakeFeed,
    axes: Mapping[str, int | None],
    fixed: bool,
    dtype: torch.dtype,
    opset: int,
    outputs: tuple[str, ...] | None,
) -> bytes:
    torch.manual_seed(SEED)
    module = make()
    generator = np.random.default_rng(SEED)
    _settle_statistics(module, feed, generator)
    module = module.to(dtype).eval()
    samples = [feed(generator) for _ in range(1 if fixed else 3)]
    arguments = {}
    for name in samples[0]:
        axis = axes.get(name, 0)
        arrays = [sample[name] for sample in samples]
        joined = arrays[0] if axis is None else np.concatenate(arrays, axis=axis)
        arguments[name] = torch.from_numpy(joined)
    count = torch.export.Dim("n", min=1, max=4096)
    shapes = {name: None if axes.get(name, 0) is None or fixed else {axes.get(name, 0): count} for name in arguments}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            tuple(arguments.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(arguments),
            output_names=outputs,
            dynamic_shapes=None if fixed else tuple(shapes.values()),
            verbose=False,
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _settle_statistics(module: nn.Module, feed: MakeFeed, generator: np.random.Generator) -> None:
    """Give batch normalisation the statistics of some samples, as training would."""
    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        return
    module.train()
    with torch.no_grad():
        for _ in range(8):
            samples = [feed(generator) for _ in range(4)]
            module(*(torch.from_numpy(np.concatenate([s[name] for s in samples])) for name in samples[0]))
