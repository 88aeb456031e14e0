"""Networks that the onnx package carries for its own tests: classic architectures of old opsets, weights all alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from bitfront.experiments.zoo.network import ZooNetwork, feed_named, picture

_DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"


def _light(name: str) -> Callable[[Path], bytes]:
    return lambda site: bytes(onnx.load(str(_DATA / "light" / f"light_{name}.onnx")).SerializeToString())  # noqa: ARG005


def _converted(name: str) -> Callable[[Path], bytes]:
    path = _DATA / "pytorch-converted" / f"test_{name}" / "model.onnx"
    return lambda site: bytes(onnx.load(str(path)).SerializeToString())  # noqa: ARG005


ONNX_TESTS = (
    ZooNetwork(name="light-squeezenet", origin="onnx", kind="classifier, weights made while it runs",
               model=_light("squeezenet"), feed=feed_named({"data_0": picture((1, 3, 224, 224), -2, 2)})),
    ZooNetwork(name="light-shufflenet", origin="onnx", kind="classifier, weights made while it runs",
               model=_light("shufflenet"), feed=feed_named({"gpu_0/data_0": picture((1, 3, 224, 224), -2, 2)})),
    ZooNetwork(name="conv-transposed", origin="onnx", kind="one layer", model=_converted("ConvTranspose2d"),
               feed=feed_named({"0": picture((1, 3, 7, 6), -1, 1)})),
)  # fmt: skip
