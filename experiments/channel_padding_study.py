"""Study of input channels of zeros: time of an INT8 convolution with them over its time without.

    python -m bitfront.experiments.channel_padding_study

One quantised convolution between quantisers, on ONNX Runtime's processor provider, one thread, batch 1; with zeros its
input is padded to a multiple of four channels, as ``lowering.dialects.ort_cpu`` writes it. Where
``ort_cpu_rules.zeros_pay`` says no the ratio stands in brackets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from math import prod

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bitfront.backends import QUICK, get_backend, time_paired
from bitfront.core import Artifact
from bitfront.lowering.dialects.ort_cpu_rules import zeros_pay
from bitfront.search.console.tables import plain_table

CHANNELS = (1, 2, 3, 5, 6, 7)
# Kernel, size of the input, stride, output channels.
CONVOLUTIONS: tuple[tuple[tuple[int, ...], tuple[int, ...], int, int], ...] = (
    ((1, 1), (64, 64), 1, 32),
    ((3, 3), (32, 32), 1, 32),
    ((5, 5), (32, 32), 1, 32),
    ((7, 7), (112, 112), 2, 64),
    ((11, 11), (64, 64), 2, 32),
    ((16, 16), (96, 96), 16, 64),
    ((3,), (1000,), 1, 32),
    ((9,), (1000,), 1, 32),
    ((25,), (1000,), 1, 32),
    ((80,), (4000,), 4, 64),
    ((512,), (8000,), 160, 257),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args(argv)
    backend = get_backend("ort-cpu")
    rows = []
    for kernel, size, stride, outputs in CONVOLUTIONS:
        cells = []
        for channels in CHANNELS:
            missing = -channels % 4
            made = {
                name: backend.compile(
                    Artifact.onnx(_convolution(channels, zeros, kernel, size, stride, outputs)), threads=1
                )
                for name, zeros in (("without", 0), ("with", missing))
            }
            x = np.random.default_rng(1).normal(size=(1, channels, *size)).astype(np.float32)
            stats = time_paired(made, "without", {"x": x}, QUICK, threads=1, batch_size=1, clock=backend.clock)
            ratio = f"{stats['with'].ratio:.2f}"
            cells.append(ratio if zeros_pay(channels, missing, kernel) else f"({ratio})")
        rows.append(("×".join(map(str, kernel)), *cells))
        sys.stderr.write(f"{rows[-1]}\n")
    device = backend.fingerprint()
    sys.stdout.write(f"{device.device} ({', '.join(device.instructions)}), {device.runtime}, 1 thread\n\n")
    sys.stdout.write(plain_table(("kernel", *map(str, CHANNELS)), rows) + "\n")
    return 0


def _convolution(
    channels: int, zeros: int, kernel: tuple[int, ...], size: tuple[int, ...], stride: int, outputs: int
) -> bytes:
    """A network of one quantised convolution whose input has so many more channels of zeros."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (outputs, channels, *kernel)).astype(np.int8)
    weight = np.pad(weight, [(0, 0), (0, zeros), *[(0, 0)] * len(kernel)])
    pads = [0] * (2 * weight.ndim)
    pads[weight.ndim + 1] = zeros
    step = np.float32(1 / prod(weight.shape[1:]))
    constants = {
        "w": weight,
        "w_s": np.full(outputs, step),
        "x_s": np.float32(0.03),
        "z": np.uint8(128),
        "pads": np.array(pads, np.int64),
    }
    nodes = [helper.make_node("QuantizeLinear", ["x", "x_s", "z"], ["q"])]
    if zeros:
        nodes.append(helper.make_node("Pad", ["q", "pads", "z"], ["p"]))
    nodes += [
        helper.make_node("DequantizeLinear", ["p" if zeros else "q", "x_s", "z"], ["x_d"]),
        helper.make_node("DequantizeLinear", ["w", "w_s"], ["w_d"], axis=0),
        helper.make_node(
            "Conv", ["x_d", "w_d"], ["c"], strides=[stride] * len(kernel), pads=[taps // 2 for taps in kernel] * 2
        ),
        helper.make_node("QuantizeLinear", ["c", "x_s", "z"], ["c_q"]),
        helper.make_node("DequantizeLinear", ["c_q", "x_s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    sys.exit(main())
