"""Images as inputs of the network: resized, cropped, scaled, laid out.

    array = (pixel · scale − mean) / std        pixel in 0 … 255, per channel

Every step is stated by ``--data-options`` or by the ``preprocessor_config.json`` beside the model; size and layout are
told from the network's input where it declares them. How pixels are scaled is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitfront.core import Array, DataError, UsageError
from bitfront.search.inputs.arrays import shown_shape
from bitfront.search.inputs.data.base import DataRequest
from bitfront.search.inputs.images.preprocessor_config import CONFIG_FILE, PixelSettings, read_config

FILTERS = ("nearest", "lanczos", "bilinear", "bicubic")
"""Pillow's resampling filters, each at its number."""
RESIZES = ("crop", "stretch", "none")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
OPTIONS = {
    "size": "SIDE or HEIGHTxWIDTH that images get (default: the network's)",
    "resize": "crop (shortest edge, then the centre), stretch, or none (default: crop)",
    "edge": "shortest edge before the crop, in pixels (default: as short as the size allows)",
    "filter": "nearest, bilinear, bicubic or lanczos (default: bilinear)",
    "layout": "nchw or nhwc (default: told from the network's input)",
    "order": "rgb or bgr (default: rgb)",
    "scale": "factor of the pixels, as in 1/255",
    "mean": "subtracted after scaling, one number or one a channel",
    "std": "divided by after that, one number or one a channel",
    "config": f"a Hugging Face preprocessor config (default: {CONFIG_FILE} beside the model)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreprocessing:
    """Steps from an image to an array.

    Attributes:
        size: Height and width in the end; None leaves them.
        resize: ``crop`` (resized, then cropped at the centre), ``stretch`` or ``none``.
        edge: Shortest edge before the crop; None for as short as the size allows.
        stretched: Height and width that ``stretch`` gives before the crop; None for ``size``.
        filter: Resampling filter.
        channels: 1, 3 or 4.
        channels_last: Whether an array is (height, width, channels).
        bgr: Whether blue is the first channel.
        scale, mean, std: Of the formula above; one number of mean and std a channel.
        dtype: Of the array.
        source: Where the settings came from.
    """

    size: tuple[int, int] | None
    resize: str
    edge: int | None
    stretched: tuple[int, int] | None
    filter: str
    channels: int
    channels_last: bool
    bgr: bool
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str
    source: str

    @property
    def text(self) -> str:
        """Every step in words, for reports."""
        size = f"{self.size[0]} × {self.size[1]}" if self.size else "their own size"
        edge = f"shortest edge {self.edge}, " if self.edge else ""
        how = {"crop": f"resized ({edge}{self.filter}) and cropped at the centre to {size}"}
        how |= {"stretch": f"stretched ({self.filter}) to {size}", "none": f"of {size}, not resized"}
        order = {1: "grey", 3: "BGR" if self.bgr else "RGB", 4: "RGBA"}[self.channels]
        layout = "NHWC" if self.channels_last else "NCHW"
        listed = [" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std)]
        scaled = f"scale {self.scale:g}, mean {listed[0]}, std {listed[1]}"
        return f"{how[self.resize]}, {order}, {layout}, {scaled} ({self.source})"

    def array(self, image: Any, where: str) -> Array:
        """An image as one sample, without the batch axis.

        Args:
            image: A Pillow image.
            where: Names it in messages.

        Raises:
            DataError: If its pixels have more than 8 bits, or it is smaller than the crop.
        """
        if image.mode[:1] in "IF":
            raise DataError(
                f"{where}: has pixels of more than 8 bits (mode {image.mode})", "convert the images to 8 bits a channel"
            )
        pixels: Array = np.asarray(self._resized(image.convert(MODES[self.channels]), where))
        pixels = pixels.reshape(*pixels.shape[:2], self.channels)
        if self.bgr:
            pixels = pixels[:, :, ::-1]
        if self.dtype != "uint8":
            scaled = pixels.astype(np.float32) * np.float32(self.scale)
            mean, std = (np.array(values, np.float32) for values in (self.mean, self.std))
            pixels = ((scaled - mean) / std).astype(self.dtype)
        return np.ascontiguousarray(pixels if self.channels_last else pixels.transpose(2, 0, 1))

    def _resized(self, image: Any, where: str) -> Any:
        width, height = image.size
        number = FILTERS.index(self.filter)
        if self.resize == "stretch" and (target := self.stretched or self.size):
            image = image.resize(target[::-1], number)
        elif self.resize == "crop" and (self.edge or self.size):
            if self.edge:
                factor = self.edge / min(height, width)
            else:
                assert self.size is not None
                factor = max(self.size[0] / height, self.size[1] / width)
            # The short side exactly, the long one rounded down, as torchvision and transformers have it.
            sides = [max(int(side * factor + 1e-6), 1) for side in (width, height)]
            image = image.resize(tuple(sides), number)
        width, height = image.size
        if self.size is None or (height, width) == self.size:
            return image
        if height < self.size[0] or width < self.size[1] or self.resize == "none":
            raise DataError(
                f"{where}: is {height} × {width} pixels before the crop, expected {self.size[0]} × {self.size[1]}",
                "say how to resize: --data-options resize=crop or resize=stretch, and edge=PIXELS no shorter than that",
            )
        top, left = (height - self.size[0]) // 2, (width - self.size[1]) // 2
        return image.crop((left, top, left + self.size[1], top + self.size[0]))


def preprocessing(request: DataRequest, name: str) -> ImagePreprocessing:
    """The steps from images to the input ``name``.

    Raises:
        DataError: If the input is no image, or its scaling, size or layout is stated nowhere.
        UsageError: If an option makes no sense.
    """
    options = request.options
    settings, source = _settings(request)
    shape, dtype = request.reference.input_shapes[name], request.reference.input_types[name]
    channels, last = _layout(request, name, options.one_of("layout", ("nchw", "nhwc")))
    declared = shape[1:3] if last else shape[2:4]
    own = (declared[0], declared[1]) if declared[0] and declared[1] else None
    wanted = options.size("size")
    if wanted and own and wanted != own:
        raise UsageError(
            f"--data-options size: got {wanted[0]}x{wanted[1]}, and input '{name}' of "
            f"'{request.reference.source}' has shape {shown_shape(shape)}",
            "leave it out",
        )
    scale, mean, std = _scaling(request, settings, channels, dtype)
    asked = options.one_of("resize", RESIZES)
    return ImagePreprocessing(
        size=own or wanted or settings.size,
        resize=asked or settings.resize or "crop",
        edge=options.positive("edge") or settings.edge,
        stretched=settings.stretched if asked is None else None,
        filter=options.one_of("filter", FILTERS) or settings.filter or "bilinear",
        channels=channels,
        channels_last=last,
        bgr=(options.one_of("order", ("rgb", "bgr")) or settings.order) == "bgr",
        scale=scale,
        mean=mean,
        std=std,
        dtype=dtype,
        source=source,
    )


def _settings(request: DataRequest) -> tuple[PixelSettings, str]:
    """Settings of a config file, and where all settings came from, in words."""
    path = request.options.path("config") or request.beside_model(CONFIG_FILE)
    given = "--data-options" if set(request.options.values) & set(OPTIONS) - {"config"} else ""
    if path is None:
        return PixelSettings(), given or "as the network's input says"
    return read_config(path), f"{given} over {path.name}" if given else path.name


def _layout(request: DataRequest, name: str, asked: str | None) -> tuple[int, bool]:
    """Channels, and whether they are the last axis."""
    shape = request.reference.input_shapes[name]
    if len(shape) != 4:
        raise DataError(
            f"{request.where}: input '{name}' of '{request.reference.source}' has shape {shown_shape(shape)}, and "
            "images need four axes: n, height, width and channels",
            "give the arrays in an .npz file",
        )
    first, last = shape[1] in MODES, shape[3] in MODES
    if asked is None and first == last:
        raise DataError(
            f"{request.where}: input '{name}' of '{request.reference.source}' has shape {shown_shape(shape)}, which "
            "leaves open where its channels are",
            "say --data-options layout=nchw or layout=nhwc",
        )
    channels_last = asked == "nhwc" if asked else last
    channels = shape[3] if channels_last else shape[1]
    if channels not in (*MODES, None):
        raise DataError(
            f"{request.where}: input '{name}' of '{request.reference.source}' has {channels} channels, and images 1, 3 "
            "or 4",
            "give the arrays in an .npz file",
        )
    return channels or 3, channels_last


def _scaling(
    request: DataRequest, settings: PixelSettings, channels: int, dtype: str
) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    stated: dict[str, tuple[float, ...] | None] = {
        key: request.options.numbers(key) for key in ("scale", "mean", "std")
    }
    if dtype == "uint8":
        given = [key for key, value in stated.items() if value is not None]
        if given:
            raise UsageError(
                f"--data-options {given[0]}: the network's input takes pixels as they are, uint8", "leave it out"
            )
        return 1.0, (0.0,) * channels, (1.0,) * channels
    if not np.issubdtype(np.dtype(dtype), np.floating):
        raise DataError(f"{request.where}: the network's input takes {dtype}, which is no image", "give an .npz file")
    from_file: Mapping[str, tuple[float, ...] | None] = {
        "scale": settings.scale,
        "mean": settings.mean,
        "std": settings.std,
    }
    found = {key: value if value is not None else from_file[key] for key, value in stated.items()}
    if all(value is None for value in found.values()):
        raise DataError(
            f"{request.where}: how pixels of 0 to 255 become the network's numbers is stated nowhere: there is no "
            f"{CONFIG_FILE} beside '{request.model}'",
            "give --data-options scale=1/255, with mean=… and std=… as the network was trained, or scale=1 for plain "
            "pixels",
        )
    mean, std = (found[key] or (neutral,) for key, neutral in (("mean", 0.0), ("std", 1.0)))
    if found["scale"] is None and max(map(abs, mean)) > 1:
        raise DataError(
            f"{request.where}: a mean of {max(map(abs, mean)):g} is one of pixels from 0 to 255, and no scale is given",
            "add scale=1 to --data-options, or give mean and std for pixels scaled by 1/255",
        )
    scale = found["scale"] or (1 / 255,)
    for key, values in (("scale", scale), ("mean", mean), ("std", std)):
        if len(values) not in ((1,) if key == "scale" else (1, channels)) or (key != "mean" and not all(values)):
            raise UsageError(
                f"{key} of images: expected {'one number' if key == 'scale' else f'1 or {channels} numbers'}"
                f"{'' if key == 'mean' else ' other than 0'}, got {', '.join(f'{value:g}' for value in values)}",
                f"correct it in --data-options, or in {CONFIG_FILE}",
            )
    return scale[0], mean * (channels // len(mean)), std * (channels // len(std))
