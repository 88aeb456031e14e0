"""The ready-made workloads keep the contract, and the published networks reach their accuracy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bitfront.core import DataError, Labelled, Workload, top1
from bitfront.experiments import workloads
from bitfront.experiments.data import IMAGENET_STATISTICS, SYMMETRIC, Normalisation, load_imagenet
from bitfront.experiments.digits import DigitsWorkload
from bitfront.experiments.networks import DigitsNet, ResNetCifar

MAKERS = {
    "resnet20": workloads.resnet20,
    "resnet56": workloads.resnet56,
    "squeezenet": workloads.squeezenet,
    "mobilenet": workloads.mobilenet,
}
WorkloadFactory = Callable[[Path | None], Workload]


def _hits(network: nn.Module | Path, data: Labelled) -> int:
    """How many samples the network gets right."""
    assert isinstance(network, nn.Module)
    assert not network.training
    total = 0
    with torch.inference_mode():
        for start in range(0, len(data), 100):
            part = data.part(start, start + 100)
            (images,) = (torch.from_numpy(np.asarray(array, np.float32)) for array in part.inputs.values())
            total += int(np.sum(top1((network(images).numpy(),), part.labels)))
    return total


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_is_read_before_it_is_needed(name: str, tmp_path: Path) -> None:
    """A workload over an empty folder can be made; its parts then name the missing file and the option."""
    workload = MAKERS[name](tmp_path)
    assert workload.name == name
    assert getattr(workload, "batch_size", None) == 1
    with pytest.raises(
        DataError, match=rf"no file '(cifar10|imagenet)/.*\.safetensors' in the data folder '{tmp_path}'"
    ):
        _ = workload.model
    with pytest.raises(DataError, match=r"no file '.*train.*'") as caught:
        _ = workload.calibration
    assert "--data" in caught.value.hint
    with pytest.raises(DataError, match=r"no file '.*(test\.npz|eval.*)'"):
        _ = workload.evaluation


def test_digits_keeps_the_contract() -> None:
    """The demonstration is a workload itself, with a batch size and data of one shape."""
    workload = workloads.digits
    assert workload.name == "digits"
    assert getattr(workload, "batch_size", None) == 28
    assert workload.calibration["images"].shape == (898, 1, 8, 8)
    assert workload.evaluation.inputs["images"].shape == (899, 1, 8, 8)
    scores = np.eye(10)[workload.evaluation.labels]
    assert np.asarray(workload.metric((scores,), workload.evaluation.labels), np.float64).mean() == 1


@pytest.mark.data
def test_calibration_images_are_spread_over_the_classes(data_folder: Path) -> None:
    """1,024 CIFAR training images, normalised, of which the first 128 already look like the rest."""
    images = np.asarray(workloads.resnet20(data_folder).calibration["images"])
    assert images.shape == (1024, 3, 32, 32)
    assert images.dtype == np.float32
    assert abs(images[:128].mean() - images.mean()) < 0.1


@pytest.mark.data
def test_resnet20_on_the_first_images(data_folder: Path) -> None:
    """On the first 500 test images ResNet-20 gets its known number right; the planted bug, swapped axes, fewer."""
    workload = workloads.resnet20(data_folder)
    data = workload.evaluation.part(0, 500)
    hits = _hits(workload.model, data)
    assert abs(hits - 455) <= 1
    swapped = Labelled(inputs={"images": data.inputs["images"].swapaxes(2, 3).copy()}, labels=data.labels)
    assert _hits(workload.model, swapped) < hits - 100


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "normalisation", "expected"),
    [("squeezenet", IMAGENET_STATISTICS, 38), ("mobilenet", SYMMETRIC, 26)],
)
def test_imagenet_networks_on_some_photographs(
    data_folder: Path, name: str, normalisation: Normalisation, expected: int
) -> None:
    """On 60 evaluation photographs each network gets its known number right."""
    folder = data_folder / "imagenet"
    data = load_imagenet(folder / "eval_nips17_224.zip", folder / "eval_nips17_labels.csv", normalisation, 60)
    assert abs(_hits(MAKERS[name](data_folder).model, data) - expected) <= 1


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "samples", "expected"),
    [("resnet20", 9980, 9155), ("resnet56", 9980, 9320), ("squeezenet", 1000, 610), ("mobilenet", 1000, 498)],
)
def test_published_accuracy(data_folder: Path, name: str, samples: int, expected: int) -> None:
    """Over the whole evaluation set the network reaches the accuracy its published weights are known for."""
    workload = MAKERS[name](data_folder)
    evaluation = workload.evaluation
    assert len(evaluation) == samples
    # Two images either way: sums of floats differ in their last bits from machine to machine.
    assert abs(_hits(workload.model, evaluation) - expected) <= 2


def test_digits_brings_a_student() -> None:
    """The demonstration trains on its training half, with a student of fewer weights that starts the same each time."""
    first, second = DigitsWorkload(), DigitsWorkload()
    assert len(first.training) == len(first.calibration["images"])
    assert first.training.labels.shape == (898,)
    assert not {"mirror"} & set(first.augment)
    (student,), (again,) = first.students, second.students
    weights = sum(parameter.numel() for parameter in student.parameters())
    assert weights < sum(parameter.numel() for parameter in DigitsNet().parameters()) / 8
    for ours, theirs in zip(student.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_shallower_network_starts_as_the_deeper_one() -> None:
    """A student keeps the first blocks of each stage; the planted bug, another block, differs."""
    teacher = ResNetCifar(20)
    student = workloads.shallower(teacher, 14)
    ours, theirs = student.state_dict(), teacher.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert set(theirs) - set(ours) == {name for name in theirs if name.split(".")[1:2] == ["2"]}
    assert not torch.equal(ours["layer1.1.conv1.weight"], theirs["layer1.2.conv1.weight"])


@pytest.mark.data
def test_training_images(data_folder: Path) -> None:
    """CIFAR networks have all 10,000 training images without labels, photographs those of the calibration."""
    workload = workloads.resnet20(data_folder)
    training = getattr(workload, "training")  # noqa: B009 - not in the protocol
    assert training["images"].shape == (10_000, 3, 32, 32)
    assert getattr(workload, "augment") == {"mirror": 0.5, "shift": 4}  # noqa: B009
    (student,) = getattr(workload, "students")  # noqa: B009
    assert isinstance(student, ResNetCifar)
    assert len(getattr(workloads.resnet56(data_folder), "students")) == 0  # noqa: B009
