"""Hugging Face's ``preprocessor_config.json``: the steps of it that turn an image into an array.

Handled: ``do_resize`` with ``size`` (a number, a shortest edge, or height and width), ``resample``, ``do_center_crop``
with ``crop_size``, ``crop_pct``, ``do_rescale``, ``rescale_factor``, ``do_normalize``, ``image_mean``, ``image_std``,
``do_flip_channel_order``. Refused: ``do_pad`` and a longest edge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitfront.core import DataError
from bitfront.core.files import check_readable

CONFIG_FILE = "preprocessor_config.json"
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_CROPS_BELOW = 384  # transformers' ConvNeXT stretches to larger sizes, and crops to smaller ones


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSettings:
    """The image preprocessing that a file states; fields as in ``ImagePreprocessing``, None for what is not stated."""

    size: tuple[int, int] | None = None
    resize: str | None = None
    edge: int | None = None
    stretched: tuple[int, int] | None = None
    filter: str | None = None
    order: str | None = None
    scale: tuple[float, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read_config(path: Path) -> PixelSettings:
    """The settings in a config file.

    Raises:
        DataError: If it cannot be read, or asks for what is not handled.
    """
    check_readable(path, DataError, f"a {CONFIG_FILE}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it holds no object")
        return _settings(config)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(
            f"'{path}': expected a {CONFIG_FILE} of an image network: {error}",
            "name another file with --data-options config=FILE, or prepare the images and give an .npz file",
        ) from error


def _settings(config: Mapping[str, Any]) -> PixelSettings:
    if config.get("do_pad"):
        raise ValueError("do_pad is not handled")
    crops = bool(config.get("do_center_crop"))
    crop = _sides(config["crop_size"] if crops and "crop_size" in config else config.get("size"))
    scale, mean, std = (1 / 255,) if config.get("do_rescale", True) else (1.0,), None, None
    if config.get("do_rescale", True) and "rescale_factor" in config:
        scale = (float(config["rescale_factor"]),)
    if config.get("do_normalize", "image_mean" in config):
        mean, std = (tuple(float(value) for value in config[key]) for key in ("image_mean", "image_std"))
    resize, edge, stretched = "none", None, None
    if config.get("do_resize", "size" in config):
        resize, edge, stretched = _resize(config, crops)
    elif crops:
        raise ValueError("do_center_crop without do_resize is not handled")
    number = config.get("resample", 2)
    if number not in _FILTERS:
        raise ValueError(f"resample {number} is none of {', '.join(map(str, _FILTERS))}")
    return PixelSettings(
        size=crop,
        resize=resize,
        edge=edge,
        stretched=stretched,
        filter=_FILTERS[number],
        order="bgr" if config.get("do_flip_channel_order") else "rgb",
        scale=scale,
        mean=mean,
        std=std,
    )


def _resize(config: Mapping[str, Any], crops: bool) -> tuple[str, int | None, tuple[int, int] | None]:
    """Method, shortest edge, and height and width that are stretched to."""
    size = config["size"]
    if isinstance(size, Mapping) and "longest_edge" in size:
        raise ValueError("a longest_edge is not handled")
    if isinstance(size, Mapping) and "shortest_edge" in size:
        edge = int(size["shortest_edge"])
        fraction = config.get("crop_pct")
        if fraction and edge >= _CROPS_BELOW:
            return "stretch", None, (edge, edge)
        return "crop", int(edge / fraction) if fraction else edge, None
    if isinstance(size, int) and crops:
        return "crop", size, None  # older configs mean the shortest edge where they crop
    return "stretch", None, _sides(size)


def _sides(size: object) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping) and {"height", "width"} <= set(size):
        return int(size["height"]), int(size["width"])
    if isinstance(size, Mapping) and "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    return None
