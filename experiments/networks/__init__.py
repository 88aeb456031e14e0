"""Networks of the ready-made workloads, each written from its paper in plain torch, weights not included."""

from experiments.networks.digits import DigitsNet
from experiments.networks.mobilenet import MobileNetV1
from experiments.networks.resnet_cifar import ResNetCifar
from experiments.networks.squeezenet import SqueezeNet

__all__ = ["DigitsNet", "MobileNetV1", "ResNetCifar", "SqueezeNet"]
