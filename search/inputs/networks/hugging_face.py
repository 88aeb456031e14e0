"""Folders of Hugging Face models, ``hf:FOLDER``: loaded by transformers for a task and exported as any torch module.

What the network reads is told by the model and by the files beside it. Its tokens are of any number, images of the size
that ``preprocessor_config.json`` or the model says. Nothing is fetched, and no code of the folder is run.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitfront.backends.registry import default_interpreter
from bitfront.core import Array, ModelError, PrecisionConfig, UsageError
from bitfront.core.formatting import first_line
from bitfront.lowering.export import export_reference
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.inputs.arrays import LABELS
from bitfront.search.inputs.data.archive import array_names, read_npz
from bitfront.search.inputs.data.tokens import IDS, MASK, TYPES
from bitfront.search.inputs.images.preprocessor_config import CONFIG_FILE, read_config
from bitfront.search.inputs.networks.tasks import PREFIX, TASKS, check_folder

if TYPE_CHECKING:
    import torch

_DECODER_IDS, _DECODER_MASK = "decoder_input_ids", "decoder_attention_mask"
_PIXELS, _SAMPLES = "pixel_values", "input_values"
# Inputs of a token each, in the order in which networks are exported with them.
_TOKENS = (IDS, MASK, TYPES, "position_ids", _DECODER_IDS, _DECODER_MASK)
_LENGTHS = (8, 5)  # tokens of the example, and of the one that the export is compared on
_SAMPLE_LENGTHS = (16_000, 12_000)  # the same of audio
_SIDE = 224  # of images where nothing says it


def read_folder(
    folder: Path, task: str, calibration: str | None, asked_batch: int | None, config: PrecisionConfig | None = None
) -> ReferenceModel:
    """The network of a folder, exported.

    Args:
        folder: As ``save_pretrained`` writes it.
        task: One of ``TASKS``.
        calibration: What ``--calib`` names: the arrays of an ``.npz`` file decide which inputs the network has.
        asked_batch: The batch it is exported with where a dynamic one is impossible; None for none.
        config: Whose network it is, where no file says which inputs that has; None for none.

    Raises:
        UsageError: As ``check_folder``; or if an input is of a kind that only an ``.npz`` file can show.
        ModelError: If transformers cannot load it, it lacks weights of the task, or it cannot be exported.
    """
    check_folder(folder, task)
    module, given = _load(folder, task), _npz(calibration)
    found = None
    for names in _input_names(module, given):
        found = _exported(module, names, given, folder, asked_batch)
        if config is None or found.architecture == config.architecture:
            break
    assert found is not None
    return found


def _load(folder: Path, task: str) -> torch.nn.Module:
    """The network in evaluation mode, in FP32, with every weight from the folder."""
    import transformers

    kind = getattr(transformers, TASKS[task])
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "output_loading_info": True}
    with _quiet(transformers):
        try:
            module, info = kind.from_pretrained(folder, dtype="float32", **options)
            if info["missing_keys"] and all(key.startswith("pooler.") for key in info["missing_keys"]):
                # A network trained for another task has no pooler, and nothing that was trained reads it.
                module, info = kind.from_pretrained(folder, dtype="float32", add_pooling_layer=False, **options)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
            raise ModelError(
                f"--workload: transformers cannot load '{folder}' for {task}: {first_line(error)}",
                "see that --task is what the model was trained for, and that the folder is whole",
            ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"--workload: '{folder}' has no weights of '{missing[0]}'"
            + (f" and {len(missing) - 1} others" if len(missing) > 1 else "")
            + f", which {type(module).__name__} needs for {task}: they would be random",
            "see that --task is what the model was trained for",
        )
    return module.eval()  # type: ignore[no-any-return]


def _npz(calibration: str | None) -> Path | None:
    path = None if calibration is None else Path(calibration)
    return path if path is not None and path.suffix.lower() == ".npz" and path.is_file() else None


def _input_names(module: torch.nn.Module, given: Path | None) -> list[list[str]]:
    """Inputs that the network may be exported with, those it has by default first."""
    parameters = inspect.signature(module.forward).parameters
    if given is not None:
        return [[name for name in array_names(given) if name != LABELS or name in parameters]]
    main = str(getattr(module, "main_input_name", IDS))
    config: Any = module.config
    if main != IDS:
        return [[main]]
    decoder = [_DECODER_IDS] if getattr(config, "is_encoder_decoder", False) and _DECODER_IDS in parameters else []
    masked = [IDS, *([MASK] if MASK in parameters else [])]
    typed = TYPES in parameters and (getattr(config, "type_vocab_size", 0) or 0) > 1
    found = [[*masked, TYPES, *decoder]] if typed else []
    return [*found, [*masked, *decoder], [IDS, *decoder]]


def _exported(
    module: torch.nn.Module, names: Sequence[str], given: Path | None, folder: Path, asked_batch: int | None
) -> ReferenceModel:
    example, other = ({name: _example(module, name, given, folder, at) for name in names} for at in (0, 1))
    dynamic = {name: (1,) for name in names if name in (*_TOKENS, _SAMPLES)}
    name = f"{PREFIX}{folder}"
    try:
        return export_reference(
            module, example, default_interpreter(), name=name, dynamic=dynamic, others=other if dynamic else None
        )
    except ModelError:
        if asked_batch is None:
            raise
    return export_reference(module, example, default_interpreter(), name=name, batch=asked_batch, dynamic=dynamic)


def _example(module: torch.nn.Module, name: str, given: Path | None, folder: Path, at: int) -> Array:
    """Values of an input for two samples, of the first or the second length of those there are."""
    config: Any = module.config
    if name in _TOKENS:
        length = _LENGTHS[at]
        tokens = np.arange(2 * length, dtype=np.int64).reshape(2, length)
        if name in (IDS, _DECODER_IDS):
            return tokens % min(int(_of(config, "vocab_size", 100)), 100)
        if name in (MASK, _DECODER_MASK):
            return np.where(tokens == 2 * length - 1, 0, 1)  # the last token of the second sample is padding
        return np.zeros_like(tokens) if name == TYPES else tokens % length
    random = np.random.default_rng(0)
    if name == _PIXELS:
        shape = (2, int(_of(config, "num_channels", 3)), *_image_size(config, folder))
        return random.standard_normal(shape).astype(np.float32)
    if name == _SAMPLES:
        return random.standard_normal((2, _SAMPLE_LENGTHS[at])).astype(np.float32)
    if given is None:
        raise UsageError(
            f"--workload: '{PREFIX}{folder}' reads '{name}', and nothing says of which shape",
            f"give --calib calib.npz with an array '{name}'",
        )
    return np.asarray(read_npz(given, (name,))[name])


def _image_size(config: Any, folder: Path) -> tuple[int, int]:
    path = folder / CONFIG_FILE
    prepared = read_config(path) if path.is_file() else None
    if prepared is not None and prepared.size is not None:
        return prepared.size
    found = _of(config, "image_size", _SIDE)
    if isinstance(found, int):
        return found, found
    return int(found[0]), int(found[1])


def _of(config: Any, field: str, default: object) -> Any:
    """A field of a model's configuration, or of that of its text or image part."""
    parts = (config, *(getattr(config, part, None) for part in ("text_config", "vision_config", "encoder")))
    return next((value for part in parts if (value := getattr(part, field, None)) is not None), default)


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep notices and progress bars off the screen."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
