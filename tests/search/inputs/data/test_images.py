"""Folders of images: prepared as stated, never as guessed; labels from folders or a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from PIL import Image

from bitfront.core import Array, DataError, UsageError
from bitfront.search.inputs.data.base import EVAL
from bitfront.search.inputs.data.registry import check_data
from tests.search.command_line import outcome
from tests.search.inputs.data.reading import image_network, read

CONFIG: Mapping[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 10},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 8, "width": 8},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.25, 0.2],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, pixels: Array | None = None, *, size: tuple[int, int] = (8, 8), seed: int = 0) -> Array:
    """An image of given or random pixels (height, width, 3), losslessly; returns them."""
    drawn = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8) if pixels is None else pixels
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn).save(path)
    return drawn


def write_config(**changes: Any) -> None:
    Path("preprocessor_config.json").write_text(json.dumps({**CONFIG, **changes}))


def test_every_kind_of_file() -> None:
    """Images of each format are found, below folders as well; other files and hidden ones are not."""
    for suffix in ("png", "bmp", "webp", "jpg", "jpeg", "PNG"):
        write(f"photos/{suffix}/one.{suffix}")
    write("photos/.hidden.png")
    Path("photos/notes.txt").write_text("no image")
    assert read(image_network(), "photos", scale="1").inputs["pixels"].shape == (6, 3, 8, 8)


def test_pixels_are_scaled_by_the_formula() -> None:
    """(pixel · scale − mean) / std, a channel at a time, in the layout of the network."""
    pixels = write("photos/a.png").astype(np.float32)
    expected = (pixels / 255 - np.array([0.5, 0.4, 0.3])) / np.array([0.5, 0.25, 0.2])
    stated = {"mean": "0.5,0.4,0.3", "std": "0.5,0.25,0.2"}
    found = read(image_network(), "photos", **stated).inputs["pixels"]
    np.testing.assert_allclose(found[0], expected.transpose(2, 0, 1), atol=1e-6)
    last = read(image_network(("n", 8, 8, 3)), "photos", **stated).inputs["pixels"]
    np.testing.assert_allclose(last[0], expected, atol=1e-6)
    assert last.dtype == np.float32


def test_blue_first() -> None:
    """``order=bgr`` reverses the channels before they are scaled."""
    pixels = write("photos/a.png")
    found = read(image_network(), "photos", order="bgr", scale="1").inputs["pixels"]
    np.testing.assert_array_equal(found[0], pixels[:, :, ::-1].transpose(2, 0, 1))


def test_whole_numbers_take_pixels_as_they_are() -> None:
    """A network of uint8 needs no scale, and refuses one."""
    pixels = write("photos/a.png")
    net = image_network(kind=TensorProto.UINT8)
    np.testing.assert_array_equal(read(net, "photos").inputs["pixels"][0], pixels.transpose(2, 0, 1))
    with pytest.raises(UsageError, match="--data-options scale: the network's input takes pixels as they are"):
        read(net, "photos", scale="1/255")


def test_grey_for_one_channel() -> None:
    """One channel is grey, as Pillow makes it."""
    write("photos/a.png")
    found = read(image_network(("n", 1, 8, 8)), "photos", scale="1").inputs["pixels"]
    np.testing.assert_array_equal(found[0, 0], np.asarray(Image.open("photos/a.png").convert("L")))


@pytest.mark.parametrize(("size", "resized"), [((16, 24), (12, 8)), ((24, 16), (8, 12))], ids=["wide", "tall"])
def test_shortest_edge_then_the_centre(size: tuple[int, int], resized: tuple[int, int]) -> None:
    """By default the shortest edge is resized to the network's, and the centre is cut out."""
    write("photos/a.png", size=size)
    image = Image.open("photos/a.png").resize(resized, Image.Resampling.BILINEAR)
    left, top = (resized[0] - 8) // 2, (resized[1] - 8) // 2
    expected = np.asarray(image.crop((left, top, left + 8, top + 8))).transpose(2, 0, 1)
    loaded = read(image_network(), "photos", scale="1")
    np.testing.assert_array_equal(loaded.inputs["pixels"][0], expected)
    assert "resized (bilinear) and cropped at the centre to 8 × 8, RGB, NCHW, scale 1" in loaded.text


def test_stretched() -> None:
    """``resize=stretch`` keeps everything and not its proportions."""
    write("photos/a.png", size=(16, 24))
    expected = np.asarray(Image.open("photos/a.png").resize((8, 8), Image.Resampling.NEAREST)).transpose(2, 0, 1)
    found = read(image_network(), "photos", scale="1", resize="stretch", filter="nearest").inputs["pixels"]
    np.testing.assert_array_equal(found[0], expected)


def test_a_config_beside_the_model() -> None:
    """``preprocessor_config.json`` states every step; an option goes before it."""
    write("photos/a.png", size=(20, 30))
    write_config()
    image = Image.open("photos/a.png").resize((15, 10), Image.Resampling.BICUBIC).crop((3, 1, 11, 9))
    expected = (np.asarray(image, np.float32) / 255 - np.array(CONFIG["image_mean"])) / np.array(CONFIG["image_std"])
    loaded = read(image_network(), "photos")
    np.testing.assert_allclose(loaded.inputs["pixels"][0], expected.transpose(2, 0, 1), atol=1e-5)
    assert "preprocessor_config.json" in loaded.text
    plain = read(image_network(), "photos", mean="0", std="1")
    np.testing.assert_allclose(plain.inputs["pixels"][0].transpose(1, 2, 0), np.asarray(image) / 255, atol=1e-6)


CONFIGS: Mapping[str, tuple[Mapping[str, Any], tuple[int, int]]] = {
    "height and width": ({"size": {"height": 8, "width": 8}, "do_center_crop": False}, (8, 8)),
    "a number": ({"size": 8, "do_center_crop": False}, (8, 8)),
    "a number, cropped": ({"size": 10}, (15, 10)),
    "a part that is kept": ({"size": {"shortest_edge": 8}, "do_center_crop": False, "crop_pct": 0.8}, (15, 10)),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_sizes_in_configs(case: str) -> None:
    """Each way in which configs write a size means what transformers makes of it."""
    changes, resized = CONFIGS[case]
    write("photos/a.png", size=(20, 30))
    write_config(do_normalize=False, do_rescale=False, **changes)
    left, top = (resized[0] - 8) // 2, (resized[1] - 8) // 2
    image = Image.open("photos/a.png").resize(resized, Image.Resampling.BICUBIC).crop((left, top, left + 8, top + 8))
    np.testing.assert_array_equal(
        read(image_network(), "photos").inputs["pixels"][0], np.asarray(image).transpose(2, 0, 1)
    )


def test_a_config_above_the_onnx_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports lie in ``onnx/`` below their config."""
    write("onnx/photos/a.png")
    write_config(do_resize=False, do_center_crop=False)
    monkeypatch.chdir(folder / "onnx")
    assert "preprocessor_config.json" in read(image_network(), "photos").text


def test_labels_are_the_folders_numbers() -> None:
    """Class folders count in the order of their names, whatever the shuffled order of the samples."""
    dark, light = (np.full((8, 8, 3), value, np.uint8) for value in (0, 255))
    for index in range(5):
        write(f"photos/b/{index}.png", light)
        write(f"photos/a/{index}.png", dark)
    loaded = read(image_network(), "photos", EVAL, scale="1/255")
    assert loaded.labels is not None
    np.testing.assert_array_equal(loaded.labels, loaded.inputs["pixels"][:, 0, 0, 0])
    assert loaded.labels[:5].tolist() not in ([0] * 5, [1] * 5)
    again = read(image_network(), "photos", EVAL, scale="1/255")
    np.testing.assert_array_equal(again.labels, loaded.labels)
    assert len(read(image_network(), "photos", EVAL, scale="1", samples="3").labelled) == 3


def test_a_file_of_class_names() -> None:
    """Where only some classes have folders, ``classes`` says which."""
    write("photos/dog/1.png")
    write("photos/cat/1.png")
    net = image_network(classes=4)
    with pytest.raises(DataError, match="has 2 class folders, and the network tells 4 classes apart"):
        read(net, "photos", EVAL, scale="1")
    Path("classes.txt").write_text("ape\ncat\ncow\ndog\n")
    assert set(read(net, "photos", EVAL, scale="1", classes="classes.txt").labelled.labels) == {1, 3}


@pytest.mark.parametrize("separator", [" ", ",", "\t"], ids=["space", "comma", "tab"])
def test_a_file_of_labels(separator: str) -> None:
    """A line an image, in any order; paths may hold what separates."""
    names = ["a b.png", "c, d.png", "e.png"]
    for number, name in enumerate(names):
        write(f"photos/{name}", np.full((8, 8, 3), number, np.uint8))
    Path("labels.txt").write_text("".join(f"{name}{separator}{n}\n" for n, name in reversed([*enumerate(names)])))
    loaded = read(image_network(classes=3), "photos", EVAL, scale="1", labels="labels.txt")
    np.testing.assert_array_equal(loaded.labelled.labels, loaded.inputs["pixels"][:, 0, 0, 0])


def test_scaling_is_never_guessed() -> None:
    """Without a word on how pixels are scaled there is an error that says what to give."""
    write("photos/a.png")
    with pytest.raises(DataError, match=r"--calib: 'photos': how pixels .* is stated nowhere") as caught:
        read(image_network(), "photos")
    assert "scale=1/255" in caught.value.hint
    with pytest.raises(DataError, match=r"a mean of 123.7 is one of pixels from 0 to 255, and no scale is given"):
        read(image_network(), "photos", mean="123.7")


def damage(name: str) -> None:
    path = Path(name)
    path.write_bytes(path.read_bytes()[:60])


def test_damaged_image() -> None:
    """A file that is cut off is named."""
    write("photos/a.png")
    damage("photos/a.png")
    with pytest.raises(DataError, match=r"'photos/a\.png' cannot be read as an image"):
        read(image_network(), "photos", scale="1")


def test_deep_images() -> None:
    """Sixteen bits a pixel are refused: Pillow would cut them off."""
    Path("photos").mkdir()
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save("photos/a.png")
    with pytest.raises(DataError, match=r"'photos/a\.png': has pixels of more than 8 bits"):
        read(image_network(), "photos", scale="1")


REFUSED: Mapping[str, tuple[tuple[int | str, ...], Mapping[str, str], str]] = {
    "layout": (("n", 3, 8, 3), {}, "leaves open where its channels are"),
    "axes": (("n", 8), {}, "images need four axes"),
    "channels": (("n", 5, 8, 8), {"layout": "nchw"}, "has 5 channels, and images 1, 3 or 4"),
    "size": (("n", 3, 8, 8), {"size": "9"}, r"--data-options size: got 9x9, and input 'pixels'"),
    "no resize": (("n", 3, 6, 6), {"resize": "none"}, "is 8 × 8 pixels before the crop, expected 6 × 6"),
    "short edge": (("n", 3, 8, 8), {"edge": "4"}, "is 4 × 4 pixels before the crop, expected 8 × 8"),
    "std": (("n", 3, 8, 8), {"std": "1,0,1"}, "std of images: expected 1 or 3 numbers other than 0, got 1, 0, 1"),
    "mean": (("n", 3, 8, 8), {"mean": "1,x"}, "--data-options mean: expected numbers with commas between"),
    "resize": (("n", 3, 8, 8), {"resize": "fit"}, "--data-options resize: expected one of crop, stretch, none"),
    "samples": (("n", 3, 8, 8), {"samples": "0"}, "--data-options samples: expected a positive whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit(case: str) -> None:
    """What the network or an option leaves open or contradicts is refused, with a way out."""
    shape, options, said = REFUSED[case]
    write("photos/a.png")
    with pytest.raises((DataError, UsageError), match=said) as caught:
        read(image_network(shape), "photos", **{"scale": "1", **options})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"do_pad": True}, "do_pad is not handled"),
        ({"resample": 9}, "resample 9"),
        ({"size": {"longest_edge": 9}}, "longest"),
    ],
)
def test_configs_that_are_not_handled(changes: Mapping[str, Any], said: str) -> None:
    """A step that would be left out is refused, not ignored."""
    write("photos/a.png")
    write_config(**changes)
    with pytest.raises(DataError, match=rf"'preprocessor_config\.json': .*{said}"):
        read(image_network(), "photos")


def test_unlabelled_images() -> None:
    """Evaluation images in no class folder are refused with both ways to label them."""
    write("photos/a.png")
    with pytest.raises(DataError, match="--eval: 'photos': has no labels") as caught:
        read(image_network(), "photos", EVAL, scale="1")
    assert "labels=labels.txt" in caught.value.hint


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Pillow is missing, the option and the package are named before a network is loaded."""
    write("photos/a.png")
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(UsageError, match=r"--calib: 'photos': reading images needs pillow") as caught:
        check_data({"--calib": "photos"}, ())
    assert "pip install pillow" in caught.value.hint


def test_a_search(capsys: pytest.CaptureFixture[str]) -> None:
    """A search runs on folders of images, and its report says every step that made arrays of them."""
    for index in range(20):
        write(f"photos/{'ab'[index % 2]}/{index}.png", size=(9, 12), seed=index)
    onnx.save(image_network(), "net.onnx")
    argv = ["--model", "net.onnx", "--calib", "photos", "--eval", "photos", "--trials", "2", "--time-limit", "1s"]
    assert outcome([*argv, "--out", "run", "--data-options", "scale=1/255", "mean=0.5", "calib:samples=9"]) in (0, 3)
    assert "random" not in capsys.readouterr().out
    page = Path("run/report.html").read_text()
    steps = "resized (bilinear) and cropped at the centre to 8 × 8, RGB, NCHW, scale 0.00392157, mean 0.5 0.5 0.5"
    assert f"9 samples of photos, in shuffled order, {steps}" in page
    assert f"20 samples of photos, in shuffled order, {steps}" in page
