"""The FP32 graphs of made networks in a run folder, so that a config of one needs no training to be applied."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from bitfront.core import ConfigError, Recipe, write_bytes
from bitfront.lowering.external import external_tensors
from bitfront.lowering.interpreter import Interpreter
from bitfront.lowering.reference import ReferenceModel, read_reference
from bitfront.search.variants.maker import Network

FOLDER = "networks"


def save_network(folder: Path, network: Network) -> Path:
    """Write a made network's FP32 graph into a run folder; returns its path there."""
    assert network.recipe is not None, "the given network is the person's own"
    path = network_file(network.recipe)
    write_bytes(folder / path, network.lowerer.reference.proto.SerializeToString(deterministic=True))
    return path


def network_file(recipe: Recipe) -> Path:
    """Where the graph lies in a run folder."""
    return Path(FOLDER) / f"{recipe.network[:16]}.onnx"


def load_network_file(path: Path, recipe: Recipe, interpreter: Interpreter) -> ReferenceModel:
    """Read the graph of a recipe's network.

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
    reference = read_reference(proto, str(path), interpreter)
    if reference.fingerprint != recipe.network:
        raise ConfigError(f"'{path}' is not the network that the config was made for", _HINT)
    return reference


_HINT = "give the file from the run's networks/ folder with --network, or add --repeat-training"
