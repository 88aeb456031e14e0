"""Samples of different lengths from beginning to end: nothing is padded, and nothing else differs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bitfront.backends import get_backend
from bitfront.backends.batches import run_outputs
from bitfront.core import Array, Artifact, CalibrationSettings, ContentStore, Inputs, RangeMethod
from bitfront.core.ragged import ragged
from bitfront.lowering.calibration import calibrate
from tests.references import INTERPRETER, load_reference
from tests.search.command_line import enter, outcome, write_npz
from tests.search.inputs.data.reading import model, text_network

SAMPLES = 60


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    enter(tmp_path, monkeypatch)
    return tmp_path


def texts(count: int = SAMPLES) -> list[Array]:
    generator = np.random.default_rng(0)
    return [generator.integers(1, 8, length) for length in generator.integers(1, 9, count)]


def per_token() -> onnx.ModelProto:
    """Scores of three classes for each token: its output has a row a sample, each of another length."""
    generator = np.random.default_rng(0)
    weights: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {
        "table": generator.standard_normal((8, 16)).astype(np.float32),
        "w": generator.standard_normal((16, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "w"], ["scores"], name="fc"),
    ]
    return model(nodes, {"input_ids": (TensorProto.INT64, ("n", "t"))}, {"scores": ("n", "t", 3)}, weights)


def answers(net: onnx.ModelProto, inputs: Inputs, backend: str = "ort-cpu") -> tuple[Array, ...] | None:
    compiled = get_backend(backend).compile(Artifact.onnx(net.SerializeToString()), threads=1)
    return run_outputs(compiled, inputs).whole


@pytest.mark.parametrize("backend", ["ort-cpu", "openvino"])
def test_outputs_are_those_of_padded_samples(backend: str) -> None:
    """A network that masks padding answers samples at their own lengths as it answers them padded."""
    if backend == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
    rows = texts()
    padded = np.array([[*row, *[0] * (8 - len(row))] for row in rows])
    mask = np.array([[1] * len(row) + [0] * (8 - len(row)) for row in rows])
    ones = ragged([np.ones_like(row) for row in rows])
    own = answers(text_network(), {"input_ids": ragged(rows), "attention_mask": ones}, backend)
    with_padding = answers(text_network(), {"input_ids": padded, "attention_mask": mask})
    assert own is not None
    assert with_padding is not None
    np.testing.assert_allclose(own[0].astype(np.float64), with_padding[0].astype(np.float64), atol=1e-5)


def test_rows_of_different_lengths() -> None:
    """An output of a row a token has no whole; its rows are repeated up to the longest."""
    compiled = get_backend("ort-cpu").compile(Artifact.onnx(per_token().SerializeToString()), threads=1)
    rows = [np.array([1, 2]), np.array([3, 4, 5])]
    outputs = run_outputs(compiled, {"input_ids": ragged(rows)})
    assert outputs.whole is None
    assert outputs.counts == (1, 1)
    (output,) = outputs.each
    assert output.rows is not None
    assert output.rows.shape == (2, 3, 3)
    np.testing.assert_array_equal(output.rows[0, 2], output.rows[0, 0])


@pytest.mark.parametrize("method", ["minmax", "mse", "percentile"])
def test_ranges_are_those_of_each_sample(method: str) -> None:
    """Samples at their own lengths have the ranges of all their tokens, padding not counted."""
    onnx.save(per_token(), "net.onnx")
    reference = load_reference(Path("net.onnx"))
    rows = texts()
    settings = CalibrationSettings(method=RangeMethod(method))
    tokens = {"input_ids": np.concatenate(rows)[:, None]}
    ranges = [
        calibrate(
            reference.proto,
            inputs,
            settings,
            ["embedded", "scores"],
            store=ContentStore(None),
            key="",
            interpreter=INTERPRETER,
        )
        for inputs in ({"input_ids": ragged(rows)}, tokens)
    ]
    for name in ("embedded", "scores"):
        np.testing.assert_allclose(ranges[0][name], ranges[1][name], rtol=1e-6)


@pytest.mark.parametrize("net", ["a class a text", "a class a token"])
def test_a_search(net: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A search runs on samples of different lengths, GPTQ included, and says what latency was measured on."""
    rows = texts()
    found = text_network(("input_ids",)) if net == "a class a text" else per_token()
    onnx.save(found, "net.onnx")
    whole = answers(found, {"input_ids": ragged(rows)})
    for place in ("calib", "eval"):
        Path(place).mkdir()
    for index, row in enumerate(rows):
        label = whole[0][index].argmax() if whole is not None else index % 3
        write_npz(Path(f"calib/{index:02d}.npz"), {"input_ids": row})
        write_npz(Path(f"eval/{index:02d}.npz"), {"input_ids": row, "labels": np.array(label)})
    (folder / "mine.py").write_text(
        "def first(outputs, labels):\n    return outputs[0][:, 0].argmax(axis=1) == labels\n", encoding="utf-8"
    )
    argv = ["--model", "net.onnx", "--calib", "calib", "--eval", "eval", "--trials", "6", "--out", "run"]
    argv += [] if whole is not None else ["--metric", "mine:first"]
    assert outcome(argv) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "latency is measured on a sample of median size: input_ids" in said
    results = json.loads((folder / "run" / "measurement.json").read_text())
    assert results["settings"]["data"]["timing"]["form"] == "median"
    assert len(results["front"]) >= 1
    assert (folder / "run" / "sensitivity.csv").read_text().count("\n") > 2
