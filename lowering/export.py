"""PyTorch modules to references, by the dynamo exporter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from lowering.reference import Reference, make_reference
from precision import Inputs, ModelError

if TYPE_CHECKING:
    import torch


def export_reference(module: torch.nn.Module, inputs: Inputs, *, name: str, batch: int | None = None) -> Reference:
    """Export a module in evaluation mode; its own mode is restored.

    Args:
        module: The trained network.
        inputs: One array per argument of ``forward``, in order, shape (n, …); the keys name the ONNX inputs.
        name: Workload's name, for messages.
        batch: A fixed batch size, or None for a dynamic one.

    Raises:
        ModelError: If the exporter fails; its own reason is in the message.
    """
    import torch

    # Two samples at least: an axis of size 1 would be specialised by the exporter.
    count = batch or 2
    arrays = [np.resize(array, (count, *array.shape[1:])) for array in inputs.values()]
    example = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    # A named dimension makes the exporter refuse a network that fixes its batch; an automatic one would not.
    shapes = tuple({0: torch.export.Dim("batch")} for _ in example) if batch is None else None
    training = module.training
    module.eval()
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module, example, dynamo=True, input_names=list(inputs), dynamic_shapes=shapes, verbose=False
            )
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        kind = "a dynamic batch" if batch is None else f"batch {batch}"
        raise ModelError(
            f"workload '{name}': PyTorch could not export the module with {kind} ({type(error).__name__}: {reason})",
            "try --batch-size with a fixed size, or export to ONNX yourself and use --model",
        ) from error
    finally:
        module.train(training)
    assert program is not None
    return make_reference(program.model_proto, name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notices (missing torchvision, deprecations of its own code) off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
