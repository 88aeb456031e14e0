"""Networks of the ready-made workloads, each written from its paper in plain torch, weights not included."""

from bitfront.experiments.networks.digits import DigitsNet
from bitfront.experiments.networks.mobilenet import MobileNetV1
from bitfront.experiments.networks.resnet_cifar import ResNetCifar
from bitfront.experiments.networks.squeezenet import SqueezeNet

__all__ = ["DigitsNet", "MobileNetV1", "ResNetCifar", "SqueezeNet"]
