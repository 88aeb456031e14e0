"""Names of layers: the user's, the parameters', and where these are lost the modules' that the exporter noted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from bitfront.core import CalibrationSettings, ConfigError, ContentStore, Scheme
from bitfront.lowering.apply import apply_config
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.module_paths import module_paths, with_module_paths, without_module_paths
from bitfront.lowering.reference import ReferenceModel
from tests.lowering.topologies import Net
from tests.references import make_reference

INPUTS = {"x": np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)}


def exported() -> onnx.ModelProto:
    """Products within modules as PyTorch's exporter notes them, one weight under its parameter's name."""
    net = Net(("batch", 8))
    source = "x"
    for name, weight, scopes in (
        ("node_MatMul_1", "val_1", "['', 'enc', 'enc.attention', 'linear']"),
        ("node_MatMul_2", "val_2", "['', 'enc', 'enc.attention', 'linear_1']"),
        ("node_MatMul_3", "enc.head.weight", "['', 'enc', 'enc.head', 'linear_2']"),
        ("node_MatMul_4", "val_4", "['', 'enc', 'enc.head', 'matmul']"),
        ("node_MatMul_5", "val_5", "['', 'matmul_1']"),
        ("node_MatMul_6", "val_6", "no list"),
    ):
        source = net.op("MatMul", [source, net.weight(weight, 8, 8, fan_in=8)], f"r{name}")
        net.nodes[-1].name = name
        net.nodes[-1].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
        source = net.op("Relu", [source], f"relu{name}")
    return net.model([source])


def lowerer_of(reference: ReferenceModel) -> Lowerer:
    """A lowerer with ranges."""
    return Lowerer(reference, get_dialect("ort-cpu"), INPUTS, CalibrationSettings(), ContentStore(None))


def test_layers_are_named_by_modules() -> None:
    """Where the weight does not tell: with numbers where a module has several, never under another layer's name."""
    names = [layer.name for layer in lowerer_of(make_reference(exported(), "net")).quantisable.layers]
    assert names == [
        *("enc.attention", "enc.attention#2", "enc.head", "enc.head#2", "node_MatMul_5", "node_MatMul_6"),
    ]


def test_metadata_changes_names_alone() -> None:
    """The network is the same as without it, byte for byte."""
    with_scopes, bare = make_reference(exported(), "net"), exported()
    for node in bare.graph.node:
        del node.metadata_props[:]
    without = make_reference(bare, "net")
    assert with_scopes.fingerprint == without.fingerprint
    assert with_scopes.proto.SerializeToString(deterministic=True) == without.proto.SerializeToString(
        deterministic=True
    )


def test_configs_of_other_names_still_apply() -> None:
    """A config from before, with nodes' names, gives its own bytes; one of neither kind is refused."""
    reference = make_reference(exported(), "net")
    for named in (reference, replace(reference, module_paths={})):
        lowerer = lowerer_of(named)
        schemes = {layer.name: Scheme.parse("int8:mse") for layer in lowerer.quantisable.layers}
        config, expected = lowerer.config(schemes), lowerer.lower(schemes)
        found = apply_config(config, reference, calibration=INPUTS, store=ContentStore(None), allow_new_weights=False)
        assert found.data == expected.data
    odd = replace(config, layers={f"other.{name}": scheme for name, scheme in config.layers.items()})
    with pytest.raises(ConfigError, match="for another network"):
        apply_config(odd, reference, calibration=INPUTS, store=ContentStore(None), allow_new_weights=False)


def test_paths_survive_a_file() -> None:
    """A normalised network notes them again, and is the same network without."""
    reference = make_reference(exported(), "net")
    noted = with_module_paths(reference.proto, reference.module_paths)
    kept = {name: path for name, path in reference.module_paths.items() if name in {n.name for n in noted.graph.node}}
    assert kept
    assert module_paths(noted.graph) == kept
    assert without_module_paths(noted) == reference.proto


@pytest.mark.parametrize(
    "text",
    ["", "1", "['', 'linear']", "[1, 2]", "(" * 9000, "__import__('os')", "['a'" * 9000],
    ids=["empty", "number", "no module", "numbers", "nested", "code", "long"],
)
def test_odd_metadata_is_passed_over(text: str) -> None:
    """Nothing is run, nothing fails."""
    model = exported()
    for node in model.graph.node:
        for entry in node.metadata_props:
            entry.value = text
    assert module_paths(model.graph) == {}
