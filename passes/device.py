"""Device of a module, and running it without leaving a trace: modes and random state are put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn


def device_of(module: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; the CPU where there is none."""
    first = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def best_device() -> torch.device:
    """A GPU where torch has one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Training or evaluation mode of each part is as before afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def channels_last(module: nn.Module) -> Iterator[None]:
    """Images lie with their channels last inside, which is faster to train; weights are contiguous again afterwards."""
    lay(module, torch.channels_last)
    try:
        yield
    finally:
        lay(module, torch.contiguous_format)


def lay(module: nn.Module, memory_format: torch.memory_format) -> None:
    """Lay every tensor of four axes out in memory; convolutions then lay out what they compute likewise."""
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=memory_format)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random numbers follow from ``seed`` inside; the process's own state is as before afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
