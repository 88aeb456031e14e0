"""Ready-made workloads, named on the command line as ``bitfront.experiments.workloads:resnet20``.

``digits`` is a workload and needs no files; the others are functions from the data folder (``--data``; None for the
default of ``experiments.data``) to a workload. Nothing is read before a property of the workload is.

| workload | network | calibration | training | evaluation |
| --- | --- | --- | --- | --- |
| ``digits`` | ``DigitsNet`` | 898 digits it was trained on | the same, with labels | the 899 others |
| ``resnet20``, ``resnet56`` | ``ResNetCifar`` | 1,024 CIFAR-10 training images | 10,000 | 9,980 test images |
| ``squeezenet`` | ``SqueezeNet`` 1.1 | 512 ImageNet-class photographs | the same | 1,000 others |
| ``mobilenet`` | ``MobileNetV1`` 0.25 | 512 ImageNet-class photographs | the same | 1,000 others |

Training images come without labels but for the digits. The photographs are few: a pass can restore what rounding cost,
hardly what much pruning did. ``digits`` and ``resnet20`` bring a student each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from torch import nn

from bitfront.core import Inputs, Labelled, Metric, Workload, top1
from bitfront.experiments.data import (
    IMAGENET_STATISTICS,
    SYMMETRIC,
    Normalisation,
    data_file,
    data_folder,
    load_cifar,
    load_imagenet,
    spread_sample,
    take,
)
from bitfront.experiments.digits import DigitsWorkload
from bitfront.experiments.networks import MobileNetV1, ResNetCifar, SqueezeNet
from bitfront.experiments.weights import from_data_parallel, from_keras_mobilenet, from_squeezenet, load_weights

CIFAR_CALIBRATION = 1024
IMAGENET_CALIBRATION = 512  # as float32 they take 308 MB
CIFAR_AUGMENT = {"mirror": 0.5, "shift": 4}  # what the published weights were trained with
IMAGENET_AUGMENT = {"mirror": 0.5, "shift": 16}
STUDENT_DEPTH = 14


class ImageWorkload:
    """Satisfies ``precision.Workload`` with a published image classifier; each part is loaded when first read.

    Args:
        name: Shown in reports.
        network: Loads the network.
        calibration: Loads the calibration inputs.
        evaluation: Loads the labelled inputs.
        training: Loads the training inputs; None is those of the calibration.
        augment: How training images vary.
        students: From the network to smaller ones; None is none.
        batch_size: Samples per timed inference unless ``--batch-size`` says otherwise.
    """

    metric: Metric = top1

    def __init__(
        self,
        *,
        name: str,
        network: Callable[[], nn.Module],
        calibration: Callable[[], Inputs],
        evaluation: Callable[[], Labelled],
        training: Callable[[], Inputs] | None = None,
        augment: Mapping[str, float],
        students: Callable[[nn.Module], Sequence[nn.Module]] | None = None,
        batch_size: int = 1,
    ) -> None:
        self.name = name
        self.batch_size = batch_size
        self.augment = augment
        self._network = network
        self._calibration = calibration
        self._evaluation = evaluation
        self._training = training
        self._students = students

    @cached_property
    def model(self) -> nn.Module:
        """The network with its published weights, in evaluation mode."""
        return self._network()

    @cached_property
    def calibration(self) -> Inputs:
        """Unlabelled inputs, float32 (n, 3, h, w)."""
        return self._calibration()

    @cached_property
    def evaluation(self) -> Labelled:
        """Labelled inputs, float32 (n, 3, h, w) and int64 (n,)."""
        return self._evaluation()

    @cached_property
    def training(self) -> Inputs:
        """Unlabelled training inputs, float32 (n, 3, h, w)."""
        return self.calibration if self._training is None else self._training()

    @cached_property
    def students(self) -> Sequence[nn.Module]:
        """Smaller networks, not trained yet."""
        return () if self._students is None else self._students(self.model)


digits: Workload = DigitsWorkload()


def resnet20(data: Path | None = None) -> Workload:
    """ResNet-20 on CIFAR-10; its student is a ResNet-14 that starts from the teacher's own first blocks."""
    return _resnet(20, data, lambda teacher: (shallower(teacher, STUDENT_DEPTH),))


def resnet56(data: Path | None = None) -> Workload:
    """ResNet-56 on CIFAR-10."""
    return _resnet(56, data)


def squeezenet(data: Path | None = None) -> Workload:
    """SqueezeNet 1.1 on ImageNet's classes."""
    folder = data_folder(data)
    return _imagenet(
        "squeezenet",
        folder,
        lambda: load_weights(SqueezeNet(), data_file(folder, "imagenet/squeezenet1.1.safetensors"), from_squeezenet),
        IMAGENET_STATISTICS,
    )


def mobilenet(data: Path | None = None) -> Workload:
    """MobileNetV1 0.25-224 on ImageNet's classes."""
    folder = data_folder(data)
    weights = "imagenet/mobilenet_v1_0.25_224.safetensors"
    return _imagenet(
        "mobilenet",
        folder,
        lambda: load_weights(MobileNetV1(width=0.25), data_file(folder, weights), from_keras_mobilenet),
        SYMMETRIC,
    )


def shallower(teacher: nn.Module, depth: int) -> ResNetCifar:
    """A residual network of ``depth`` layers with a deeper one's stem, first blocks of each stage and classifier."""
    student = ResNetCifar(depth)
    weights = teacher.state_dict()
    student.load_state_dict({name: weights[name] for name in student.state_dict()})
    return student.eval()


def _resnet(
    depth: int, data: Path | None, students: Callable[[nn.Module], Sequence[nn.Module]] | None = None
) -> Workload:
    folder = data_folder(data)
    weights = f"cifar10/resnet{depth}.safetensors"

    def images() -> Labelled:
        return load_cifar(data_file(folder, "cifar10/cifar10_train_10k.npz"), IMAGENET_STATISTICS)

    def calibration() -> Inputs:
        found = images()
        return take(found, spread_sample(len(found), CIFAR_CALIBRATION))

    return ImageWorkload(
        name=f"resnet{depth}",
        network=lambda: load_weights(ResNetCifar(depth), data_file(folder, weights), from_data_parallel),
        calibration=calibration,
        evaluation=lambda: load_cifar(data_file(folder, "cifar10/cifar10_test.npz"), IMAGENET_STATISTICS),
        training=lambda: images().inputs,
        augment=CIFAR_AUGMENT,
        students=students,
    )


def _imagenet(name: str, folder: Path, network: Callable[[], nn.Module], normalisation: Normalisation) -> Workload:
    def images(stem: str, limit: int | None) -> Labelled:
        archive = data_file(folder, f"imagenet/{stem}_224.zip")
        table = data_file(folder, f"imagenet/{stem}_labels.csv")
        return load_imagenet(archive, table, normalisation, limit)

    return ImageWorkload(
        name=name,
        network=network,
        calibration=lambda: images("calib_train_sample", IMAGENET_CALIBRATION).inputs,
        evaluation=lambda: images("eval_nips17", None),
        augment=IMAGENET_AUGMENT,
    )
