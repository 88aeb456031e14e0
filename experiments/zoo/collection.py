"""Every network of the zoo, by name: published ones, then those made in code."""

from __future__ import annotations

from bitfront.experiments.zoo.forests import FORESTS
from bitfront.experiments.zoo.network import ZooNetwork
from bitfront.experiments.zoo.onnx_tests import ONNX_TESTS
from bitfront.experiments.zoo.published import PUBLISHED
from bitfront.experiments.zoo.sequences import SEQUENCES
from bitfront.experiments.zoo.tiny import TINY
from bitfront.experiments.zoo.vision import VISION

ZOO: dict[str, ZooNetwork] = {
    network.name: network for part in (PUBLISHED, VISION, SEQUENCES, FORESTS, ONNX_TESTS, TINY) for network in part
}
