"""Text as token numbers, through the ``tokenizer.json`` beside the model.

Samples are padded to one length: that of the network's input, ``length``, or the longest sample's. Without an attention
mask, which hides padding, or with ``padding=none`` each keeps its own length. What is longer than the network takes is
cut as the tokenizer says, or its ``tokenizer_config.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitfront.core import Array, DataError, UsageError
from bitfront.core.files import check_readable
from bitfront.core.ragged import joined
from bitfront.search.inputs.arrays import shown_shape
from bitfront.search.inputs.data.base import DataRequest, library

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
FIELDS = (IDS, MASK, TYPES)
OPTIONS = {
    "tokenizer": f"the tokenizer (default: {TOKENIZER_FILE} beside the model)",
    "length": "tokens that every sample is padded or cut to (default: the network's, or the longest sample's)",
    "padding": "longest, or none: every sample at its own length (default: longest, none without a mask)",
    "pad": "number of the token that pads (default: the tokenizer's)",
}
PADDINGS = ("longest", "none")
_LONGEST = 2**20  # a model_max_length beyond that stands for none


def check_library(spec: str, option: str) -> None:
    """Refuse text where nothing can tokenise it.

    Raises:
        UsageError: If the library is missing.
    """
    library("tokenizers", "tokenizers", "text", f"{option}: '{spec}': tokenising text")


def tokenised(texts: Sequence[str], request: DataRequest, fields: Mapping[str, str]) -> tuple[dict[str, Array], str]:
    """Texts as the network's inputs, and how they became so in words.

    Args:
        texts: One a sample.
        request: What it is for.
        fields: Input name → one of ``FIELDS``; inputs that bear these names need not be there.

    Raises:
        DataError: If there is no tokenizer, an input is none of its fields, or padding would be read as text.
        UsageError: If an option makes no sense.
    """
    check_library(request.spec, request.option)
    path = request.options.path("tokenizer") or request.beside_model(TOKENIZER_FILE)
    if path is None:
        raise DataError(
            f"{request.where}: text needs a tokenizer, and there is no {TOKENIZER_FILE} beside '{request.model}'",
            "copy it there, or give --data-options tokenizer=FILE",
        )
    wanted = _fields(request, fields)
    tokenizer = _tokenizer(path)
    settings = _settings(path.with_name(CONFIG_FILE))
    fixed = _fixed_length(request, wanted)
    limit = fixed or _most(tokenizer, settings)
    if limit is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(limit)
    pad, pad_given = _pad(request, tokenizer, settings), "pad" in request.options.values
    tokenizer.no_padding()
    found = tokenizer.encode_batch(list(texts))
    lengths = [len(each.ids) for each in found]
    cut = sum(length == limit for length in lengths) if limit is not None else 0
    detail = f"tokenised by {path.name} into {min(lengths)} to {max(lengths)} tokens"
    detail += f", {cut} of them cut at {limit} or as long" if cut else ""
    empty = next((index for index, length in enumerate(lengths) if not length), None)
    if empty is not None:
        raise DataError(f"{request.where}: sample {empty + 1} has no tokens", "take it out")
    length = fixed or max(lengths)
    uneven = min(lengths) < length
    masked = MASK in wanted.values() or pad_given
    if request.options.one_of("padding", PADDINGS) == "none" or (uneven and not masked and fixed is None):
        return _unpadded(found, wanted, request), f"{detail}, not padded"
    if uneven and not masked:
        raise DataError(
            f"{request.where}: samples have {min(lengths)} to {length} tokens, and the network takes {length} and has "
            f"no {MASK}, so padding would be read as text",
            "name the padding that the network was trained with: --data-options pad=0",
        )
    if uneven and pad is None:
        raise DataError(
            f"'{path}': the tokenizer names no padding, and samples have {min(lengths)} to {length} tokens",
            "name one, --data-options pad=NUMBER, or run samples at their own lengths, --data-options padding=none",
        )
    columns = {
        IDS: [[*each.ids, *[pad] * (length - len(each.ids))] for each in found],
        MASK: [[*each.attention_mask, *[0] * (length - len(each.ids))] for each in found],
        TYPES: [[*each.type_ids, *[0] * (length - len(each.ids))] for each in found],
    }
    arrays = {
        name: np.array(columns[field], np.int64).astype(request.reference.input_types[name])
        for name, field in wanted.items()
    }
    return arrays, f"{detail}, padded to {length}"


def _unpadded(found: Sequence[Any], wanted: Mapping[str, str], request: DataRequest) -> dict[str, Array]:
    """Each sample at its own length."""
    rows = {IDS: [e.ids for e in found], MASK: [e.attention_mask for e in found], TYPES: [e.type_ids for e in found]}
    arrays = {}
    for name, field in wanted.items():
        arrays[name] = joined(
            [np.array(row, np.int64).astype(request.reference.input_types[name]) for row in rows[field]]
        )
    return arrays


def _fields(request: DataRequest, fields: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, shape in request.reference.input_shapes.items():
        field = fields.get(name, name)
        if field not in FIELDS:
            raise DataError(
                f"{request.where}: text becomes {', '.join(FIELDS)}, and the network has an input '{name}'",
                f"say what it is with --data-options columns={name}:{IDS}, or give the arrays in an .npz file",
            )
        if len(shape) != 2 or request.reference.batching.input_axis(name) != 0:
            raise DataError(
                f"{request.where}: expected input '{name}' of shape (n, tokens), got {shown_shape(shape)}",
                "give the arrays in an .npz file",
            )
        found[name] = field
    if IDS not in found.values():
        raise DataError(
            f"{request.where}: the network has no input of token numbers; inputs: {', '.join(found)}",
            f"say which it is: --data-options columns=NAME:{IDS}",
        )
    return found


def _fixed_length(request: DataRequest, names: Mapping[str, str]) -> int | None:
    declared = {size for name in names if (size := request.reference.input_shapes[name][1]) is not None}
    asked = request.options.positive("length")
    if len(declared | ({asked} if asked else set())) > 1:
        raise UsageError(
            f"--data-options length: got {asked}, and the network's inputs take {', '.join(map(str, declared))} tokens",
            "leave it out",
        )
    return asked or next(iter(declared), None)


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    check_readable(path, DataError, f"a {TOKENIZER_FILE}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"'{path}' is no readable {TOKENIZER_FILE} ({str(error)[:120]})", "copy it again") from error


def _settings(path: Path) -> Mapping[str, Any]:
    """Contents of ``tokenizer_config.json``; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"'{path}' is no readable JSON ({str(error)[:120]})", "copy it again, or take it away"
        ) from error
    return found if isinstance(found, dict) else {}


def _most(tokenizer: Any, settings: Mapping[str, Any]) -> int | None:
    own = (tokenizer.truncation or {}).get("max_length")
    configured = settings.get("model_max_length")
    if isinstance(configured, int | float) and 0 < configured < _LONGEST:
        own = min(own or _LONGEST, int(configured))
    return own


def _pad(request: DataRequest, tokenizer: Any, settings: Mapping[str, Any]) -> int | None:
    asked = request.options.whole("pad")
    if asked is not None:
        return asked
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    token = settings.get("pad_token")
    token = token.get("content") if isinstance(token, Mapping) else token
    number = tokenizer.token_to_id(token) if isinstance(token, str) else None
    return None if number is None else int(number)
