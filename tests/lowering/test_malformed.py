"""Files that are no network, or one that is too large: each ends in a sentence about the file and the part at fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bitfront.core import ModelError
from tests.references import load_reference
from tests.search.command_line import network, outcome


def _save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _external(folder: Path, entries: Mapping[str, str], *, size: int = 8) -> Path:
    """A MatMul whose weight, ``size`` × ``size``, lies in a sparse file of that size."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[size, size], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "net.bin", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [tensor])
    with (folder / "net.bin").open("wb") as file:
        file.truncate(4 * size * size)
    return _save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param({}, id="no-length"),
        pytest.param({"length": "256"}, id="length"),
        pytest.param({"offset": "0", "length": "256"}, id="offset"),
    ],
)
def test_external_data_of_the_right_size(tmp_path: Path, entries: dict[str, str]) -> None:
    """With and without a length the data is read."""
    assert load_reference(_external(tmp_path, entries)).input_shapes == {"x": (None, 8)}


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        pytest.param({"length": "-4"}, r"'w': expected a number of bytes as the length .* got '-4'", id="negative"),
        pytest.param({"offset": "-4"}, r"'w': expected a number of bytes as the offset .* got '-4'", id="before"),
        pytest.param({"length": "many"}, "got 'many'", id="words"),
        pytest.param({"length": "9" * 30}, "got '9999", id="overflow"),
        pytest.param({"length": "255"}, r"'w' of shape \(8, 8\) takes 256 bytes, but .* has 255", id="short"),
        pytest.param({"length": "512"}, "takes 256 bytes, but .* has 512", id="long"),
        pytest.param({"offset": "8", "length": "256"}, "has 248 bytes from 8 on, expected 256", id="beyond"),
        pytest.param({"offset": "999"}, "takes 256 bytes", id="behind"),
        pytest.param({"location": "no\0name"}, "which is missing", id="no-name"),
        pytest.param({"location": "x" * 5000}, "which is missing", id="long-name"),
        pytest.param({"location": ""}, "outside the model's folder", id="empty-name"),
        pytest.param({"location": "/etc/passwd"}, "outside the model's folder", id="elsewhere"),
    ],
)
def test_external_data_that_does_not_fit(tmp_path: Path, entries: dict[str, str], match: str) -> None:
    """The tensor is named, with what was expected and what came."""
    with pytest.raises(ModelError, match=match) as caught:
        load_reference(_external(tmp_path, entries))
    assert "'w'" in caught.value.message


def test_one_file_beyond_two_gigabytes(tmp_path: Path) -> None:
    """Refused before it is opened."""
    path = tmp_path / "net.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 100)
    with pytest.raises(ModelError, match=r"has 2\.15 GB, more than one ONNX file can hold"):
        load_reference(path)


def _break_data(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-3]


def _break_order(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "active"


def _break_names(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = "features"


def _break_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def _break_domain(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "no.such.domain"


def _break_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "NoSuchOperator"


def _break_input(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[1] = "no such tensor"


def _break_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def _break_shape(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -8


def _break_version(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 10**6


def _recur(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function(
            "mine",
            "F",
            ["a"],
            ["b"],
            [helper.make_node("F", ["a"], ["b"], domain="mine")],
            [helper.make_opsetid("", 21), helper.make_opsetid("mine", 1)],
        )
    )
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "F", "mine"


def _nest(model: onnx.ModelProto) -> None:
    out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Identity", ["features"], ["inner"])], "b", [], [out])
    for depth in range(60):
        node = helper.make_node("If", ["c"], [f"o{depth}"], then_branch=body, else_branch=body)
        body = helper.make_graph([node], "b", [], [helper.make_tensor_value_info(f"o{depth}", TensorProto.FLOAT, None)])
        if body.ByteSize() > 200_000:
            break
    model.graph.node[1].CopyFrom(helper.make_node("If", ["c"], ["active"], then_branch=body, else_branch=body))


def _sequence_input(model: onnx.ModelProto) -> None:
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    model.graph.input.append(helper.make_value_info("s", helper.make_sequence_type_proto(kind)))


BREAKS: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "data": (_break_data, "conv.weight"),
    "cycle": (_break_order, "active"),
    "names": (_break_names, "features"),
    "opset": (_break_opset, "opset_import is missing"),
    "domain": (_break_domain, "no.such.domain"),
    "operator": (_break_operator, "NoSuchOperator"),
    "input": (_break_input, "no such tensor"),
    "type": (_break_type, "net.onnx"),
    "shape": (_break_shape, "net.onnx"),
    "version": (_break_version, "is of opset 1000000"),
    "recursion": (_recur, "net.onnx"),
    "nesting": (_nest, "net.onnx"),
    "sequence": (_sequence_input, "'s' is no tensor"),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_malformed_networks(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each fault ends with exit status 2 and a message about the file and what is wrong in it."""
    change, named = BREAKS[kind]
    model = network()
    change(model)
    path = _save(model, tmp_path)
    assert outcome(["inspect", str(path)]) == 2
    said = capsys.readouterr().err
    assert "net.onnx" in said.replace("\n", "")
    assert named in said.replace("\n", " ")


@pytest.mark.parametrize("seed", range(6))
def test_damaged_files(seed: int, tmp_path: Path) -> None:
    """Cut anywhere, or with bytes that turned, a file is read or refused; nothing else ever happens."""
    generator, whole, path = np.random.default_rng(seed), network().SerializeToString(), tmp_path / "net.onnx"
    for turn in range(25):
        damaged = bytearray(whole)
        if turn % 3 == 0:
            del damaged[int(generator.integers(len(whole))) :]
        for _ in range(turn % 3):
            # The weights are in the middle; what surrounds them is more delicate.
            place = int(generator.integers(500))
            damaged[place if generator.random() < 0.5 else len(damaged) - 1 - place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        assert outcome(["inspect", str(path)]) in (0, 2)
