"""Every network of the zoo, by name."""

from __future__ import annotations

from bitfront.experiments.zoo.network import ZooNetwork
from bitfront.experiments.zoo.published import PUBLISHED

ZOO: dict[str, ZooNetwork] = {network.name: network for network in PUBLISHED}
