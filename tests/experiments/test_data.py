"""Images, labels and published weights: values by hand, and every way a file can be wrong."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from bitfront.core import DataError
from bitfront.experiments.data import (
    ENVIRONMENT,
    IMAGENET_STATISTICS,
    SYMMETRIC,
    data_file,
    data_folder,
    load_cifar,
    load_imagenet,
    spread_sample,
)
from bitfront.experiments.networks import MobileNetV1, ResNetCifar, SqueezeNet
from bitfront.experiments.weights import from_data_parallel, from_keras_mobilenet, from_squeezenet, load_weights


def test_normalisation_by_hand() -> None:
    """Each channel becomes (x / 255 − mean) / std, and channels move in front of the pixels."""
    pixels = np.zeros((1, 1, 2, 3), np.uint8)
    pixels[0, 0, 1] = (255, 51, 102)
    out = IMAGENET_STATISTICS.apply(pixels)
    assert out.shape == (1, 3, 1, 2)
    assert out.dtype == np.float32
    expected = [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0.4 - 0.406) / 0.225]
    np.testing.assert_allclose(out[0, :, 0, 1], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(SYMMETRIC.apply(pixels)[0, :, 0, 1], pixels[0, 0, 1] / 127.5 - 1, rtol=1e-5, atol=1e-6)


def test_the_folder_is_the_options_then_the_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``--data`` goes before the environment, which goes before the default."""
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "named"))
    assert data_folder(tmp_path) == tmp_path
    assert data_folder(None) == tmp_path / "named"
    monkeypatch.delenv(ENVIRONMENT)
    assert data_folder(None).parts[-2:] == ("shared", "data")


def test_a_missing_file_is_named_with_the_option(tmp_path: Path) -> None:
    """A file that is not there is named, with the folder and the option that says where it is."""
    with pytest.raises(DataError, match=r"no file 'cifar10/x\.npz' in the data folder") as caught:
        data_file(tmp_path, "cifar10/x.npz")
    assert "--data" in caught.value.hint


def test_spread_sample_is_fixed_and_without_repetition() -> None:
    """The same indices come every time, each once, and a shorter sample is a prefix of a longer one."""
    sample = spread_sample(1000, 64)
    assert len(set(sample.tolist())) == 64
    assert sample.tolist() == spread_sample(1000, 1000)[:64].tolist()
    assert len(spread_sample(10, 64)) == 10
    # Of 1,000 samples sorted into ten classes every class is met.
    assert set((sample // 100).tolist()) == set(range(10))


def test_cifar_is_read(tmp_path: Path) -> None:
    """Images come normalised, with their labels, in the file's order."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    path = tmp_path / "a.npz"
    np.savez(path, images=pixels, labels=np.arange(4))
    data = load_cifar(path, SYMMETRIC)
    np.testing.assert_allclose(
        np.asarray(data.inputs["images"], np.float32), pixels.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-5
    )
    assert data.labels.tolist() == [0, 1, 2, 3]


def test_damaged_cifar_files_are_named(tmp_path: Path) -> None:
    """A truncated archive, a missing array and a wrong shape are each a data error with the path."""
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((2, 32, 32, 3), np.uint8), labels=np.zeros(2, np.int64))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"a\.npz': expected an \.npz"):
        load_cifar(path, SYMMETRIC)
    np.savez(path, images=np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(DataError, match="labels"):
        load_cifar(path, SYMMETRIC)
    np.savez(path, images=np.zeros((2, 3, 32, 32), np.uint8), labels=np.zeros(2, np.int64))
    with pytest.raises(DataError, match=r"got uint8 \(2, 3, 32, 32\)"):
        load_cifar(path, SYMMETRIC)


@pytest.fixture
def photographs(tmp_path: Path) -> tuple[Path, Path]:
    """Three grey JPEG files, brighter from one to the next, and their table."""
    archive, table = tmp_path / "a.zip", tmp_path / "a.csv"
    with zipfile.ZipFile(archive, "w") as file:
        for number, grey in enumerate((0, 100, 200)):
            buffer = io.BytesIO()
            Image.new("RGB", (224, 224), (grey, grey, grey)).save(buffer, "JPEG", quality=95)
            file.writestr(f"{number}.jpg", buffer.getvalue())
    table.write_text("file,label\n0.jpg,7\n1.jpg,8\n2.jpg,9\n")
    return archive, table


@pytest.mark.parametrize("limit", [None, 2])
def test_photographs_stay_with_their_labels(photographs: tuple[Path, Path], limit: int | None) -> None:
    """All of the table's images come in its order, or a spread sample of them, each with its label."""
    data = load_imagenet(*photographs, SYMMETRIC, limit)
    rows = np.arange(3) if limit is None else spread_sample(3, limit)
    assert data.labels.tolist() == (rows + 7).tolist()
    assert data.inputs["images"].shape == (len(rows), 3, 224, 224)
    np.testing.assert_allclose(data.inputs["images"].mean(axis=(1, 2, 3)), rows * 100 / 127.5 - 1, atol=0.02)


def test_damaged_photographs_are_named(photographs: tuple[Path, Path]) -> None:
    """A missing image, a broken archive and a broken table are each a data error with the path."""
    archive, table = photographs
    table.write_text("file,label\n9.jpg,7\n")
    with pytest.raises(DataError, match=r"image '9\.jpg' cannot be read"):
        load_imagenet(archive, table, SYMMETRIC)
    table.write_text("file,label\n0.jpg,seven\n")
    with pytest.raises(DataError, match=r"a\.csv': expected a table"):
        load_imagenet(archive, table, SYMMETRIC)
    table.write_text("file,label\n0.jpg,7\n")
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(DataError, match=r"a\.zip': the archive cannot be read"):
        load_imagenet(archive, table, SYMMETRIC)


def _keras_names(network: MobileNetV1) -> dict[str, Tensor]:
    """The published file's names and layouts for ``network``'s tensors."""
    kinds = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    stored = {}
    for name, tensor in network.state_dict().items():
        module, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked":
            continue
        layer = {"conv1_norm": "conv1_bn", "classifier": "conv_preds"}.get(module, module)
        if module.startswith("blocks."):
            _, number, part = module.split(".")
            layer = f"conv_{'dw' if 'depth' in part else 'pw'}_{int(number) + 1}{'_bn' * part.endswith('_norm')}"
        if kind == "weight" and tensor.ndim == 4:
            depthwise = "_dw_" in layer
            kind = "depthwise_kernel" if depthwise else "kernel"
            tensor = tensor.permute(2, 3, 0, 1) if depthwise else tensor.permute(2, 3, 1, 0)
        elif layer != "conv_preds":
            kind = kinds[kind]
        stored[f"{layer}/{layer}/{kind}:0"] = tensor.contiguous()
    return stored


def test_keras_layouts_come_back(tmp_path: Path) -> None:
    """Kernels stored (h, w, in, out) and (h, w, channels, 1) load as (out, in, h, w) and (channels, 1, h, w)."""
    torch.manual_seed(0)
    network = MobileNetV1()
    stored = _keras_names(network)
    path = tmp_path / "m.safetensors"
    path.write_bytes(save(stored))
    loaded = load_weights(MobileNetV1(), path, from_keras_mobilenet)
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    # Planted bug: height and width swapped.
    swapped = {name: t.transpose(0, 1).contiguous() if t.ndim == 4 else t for name, t in stored.items()}
    assert not torch.equal(from_keras_mobilenet(swapped)["conv1.weight"], network.conv1.weight)


def test_squeezenet_convolutions_are_numbered_in_order(tmp_path: Path) -> None:
    """Convolution i of the file is the network's i-th, squeeze before the two expansions."""
    network = SqueezeNet()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    stored = {}
    for index, module in enumerate(convolutions):
        assert module.bias is not None
        stored[f"squeezenet0_conv{index}_weight"] = module.weight.data
        stored[f"squeezenet0_conv{index}_bias"] = module.bias.data
    path = tmp_path / "s.safetensors"
    path.write_bytes(save(stored))
    loaded = load_weights(SqueezeNet(), path, from_squeezenet).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in network.state_dict().items())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """Loading is strict: other depths, truncated files and missing tensors name the file and the network."""
    path = tmp_path / "r.safetensors"
    path.write_bytes(save({f"module.{name}": tensor for name, tensor in ResNetCifar(20).state_dict().items()}))
    assert not load_weights(ResNetCifar(20), path, from_data_parallel).training
    with pytest.raises(DataError, match=r"r\.safetensors': expected the weights of a ResNetCifar"):
        load_weights(ResNetCifar(56), path, from_data_parallel)
    with pytest.raises(DataError, match="expected the weights of a SqueezeNet"):
        load_weights(SqueezeNet(), path, from_squeezenet)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="expected the weights of a ResNetCifar"):
        load_weights(ResNetCifar(20), path, from_data_parallel)
