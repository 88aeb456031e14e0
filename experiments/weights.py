"""Published weights into our networks: where each source's names and layouts differ from ours.

Every mapping takes the file's tensors and returns a state dictionary; loading is strict, so a tensor too many, too
few or of another shape is an error that names the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from bitfront.core import DataError, WorkloadError
from bitfront.experiments.networks.squeezenet import FIRES, POOLED_BEFORE

Tensors = Mapping[str, Tensor]
Renaming = Callable[[Tensors], dict[str, Tensor]]


def load_weights(network: nn.Module, path: Path, rename: Renaming) -> nn.Module:
    """Load a ``.safetensors`` file into ``network``, in evaluation mode.

    Args:
        network: Modified in place, and returned.
        path: The file.
        rename: From the file's tensors to the network's state dictionary.

    Raises:
        DataError: If the file is damaged or holds another network's weights.
        WorkloadError: If safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise WorkloadError(
            "reading weights needs safetensors, which is not installed", "install the 'demo' extra"
        ) from error
    try:
        stored = load(path.read_bytes())
        network.load_state_dict(rename(stored))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()
        raise DataError(
            f"'{path}': expected the weights of a {type(network).__name__}: {' '.join(reason[:2])}",
            "replace the file by an intact copy",
        ) from error
    return network.eval()


def from_data_parallel(stored: Tensors) -> dict[str, Tensor]:
    """Names with the ``module.`` prefix that ``torch.nn.DataParallel`` adds."""
    return {name.removeprefix("module."): tensor for name, tensor in stored.items()}


def from_squeezenet(stored: Tensors) -> dict[str, Tensor]:
    """``squeezenet0_conv{i}_weight``: the convolutions numbered in order, three a Fire module."""
    modules = ["conv1"]
    position = 0
    for number in range(2, 2 + len(FIRES)):
        position += number in POOLED_BEFORE
        modules += [f"fires.{position}.{part}" for part in ("squeeze", "expand1", "expand3")]
        position += 1
    modules.append("conv10")
    return {
        f"{module}.{kind}": stored[f"squeezenet0_conv{index}_{kind}"]
        for index, module in enumerate(modules)
        for kind in ("weight", "bias")
    }


_KERAS_KINDS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "bias": "bias",
}


def from_keras_mobilenet(stored: Tensors) -> dict[str, Tensor]:
    """HDF5 paths ``conv_pw_3/conv_pw_3/kernel:0``; kernels (h, w, in, out), depthwise ones (h, w, channels, 1)."""
    renamed = {}
    for path, tensor in stored.items():
        parts = path.split("/")
        module, kind = _keras_module(parts[0]), parts[-1].removesuffix(":0")
        if kind == "kernel":
            renamed[f"{module}.weight"] = tensor.permute(3, 2, 0, 1).contiguous()
        elif kind == "depthwise_kernel":
            renamed[f"{module}.weight"] = tensor.permute(2, 3, 0, 1).contiguous()
        else:
            renamed[f"{module}.{_KERAS_KINDS[kind]}"] = tensor
    return renamed


def _keras_module(layer: str) -> str:
    if match := re.fullmatch(r"conv_(dw|pw)_(\d+)(_bn)?", layer):
        part = "depthwise" if match[1] == "dw" else "pointwise"
        return f"blocks.{int(match[2]) - 1}.{part}{'_norm' if match[3] else ''}"
    return {"conv1": "conv1", "conv1_bn": "conv1_norm", "conv_preds": "classifier"}[layer]
