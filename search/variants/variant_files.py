"""The FP32 graphs of model variants in a run folder, so that a config of one needs no training to be applied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from bitfront.core import ConfigError, Recipe, write_bytes
from bitfront.lowering.external import external_tensors
from bitfront.lowering.module_paths import module_paths, with_module_paths, without_module_paths
from bitfront.lowering.reference import ReferenceModel, read_reference, with_batching_of
from bitfront.search.variants.pipeline import Variant

FOLDER = "networks"


def save_variant(folder: Path, variant: Variant) -> Path:
    """Write a variant's FP32 graph into a run folder; returns its path there."""
    assert variant.recipe is not None, "the given network is the person's own"
    path = variant_file(variant.recipe)
    reference = variant.lowerer.reference
    proto = with_module_paths(reference.proto, reference.module_paths)
    write_bytes(folder / path, proto.SerializeToString(deterministic=True))
    return path


def variant_file(recipe: Recipe) -> Path:
    """The path of a variant's graph in a run folder."""
    return Path(FOLDER) / f"{recipe.network[:16]}.onnx"


def load_variant_file(path: Path, recipe: Recipe, given: ReferenceModel) -> ReferenceModel:
    """The graph of a recipe's variant, read from a file; the batch axes are those of the network it was made from.

    Raises:
        ConfigError: If the file cannot be read, or is another network.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"cannot read network '{path}': expected a regular file", _HINT)
        proto = onnx.load_from_string(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise ConfigError(f"cannot read network '{path}': {error}", _HINT) from error
    outside = external_tensors(proto)
    if outside:
        name = outside[0].name
        raise ConfigError(f"'{path}': tensor '{name}' keeps its data in another file, expected one file", _HINT)
    own = read_reference(without_module_paths(proto), str(path), given.interpreter)
    reference = with_batching_of(own, given)
    if reference.fingerprint != recipe.network:
        raise ConfigError(f"'{path}' is not the network that the config was made for", _HINT)
    return replace(reference, module_paths=module_paths(proto.graph))


_HINT = "give the file from the run's networks/ folder with --network, or add --repeat-training"
