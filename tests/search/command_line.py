"""Files for tests of the command line: a small classifier whose labels are its own predictions, and its data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import Array
from bitfront.search.cli import main

CHANNELS, SIDE, CLASSES, SAMPLES = 3, 8, 4, 40
SHAPE = (CHANNELS, SIDE, SIDE)


def network(*, batch: int | str = "n", pooled: bool = True, classes: int = CLASSES, seed: int = 0) -> onnx.ModelProto:
    """Conv, Relu, GlobalAveragePool, Gemm; without pooling, its output is a map (n, width, side, side)."""
    generator = np.random.default_rng(seed)
    width = 8
    weights = {
        "conv.weight": generator.standard_normal((width, CHANNELS, 3, 3)),
        "fc.weight": generator.standard_normal((width, classes)),
    }
    nodes = [
        helper.make_node("Conv", ["input", "conv.weight"], ["features"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc.weight"], ["logits"], name="fc"),
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes])
    if not pooled:
        nodes, weights = nodes[:2], {"conv.weight": weights["conv.weight"]}
        output = helper.make_tensor_value_info("active", TensorProto.FLOAT, [batch, width, SIDE, SIDE])
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, *SHAPE])],
        [output],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A person's folder."""

    folder: Path

    @property
    def net(self) -> Path:
        return self.folder / "net.onnx"

    @property
    def calib(self) -> Path:
        return self.folder / "calib.npz"

    @property
    def eval(self) -> Path:
        return self.folder / "eval.npz"

    def argv(self, *more: str) -> list[str]:
        """The main job on these files."""
        return ["--model", str(self.net), "--calib", str(self.calib), "--eval", str(self.eval), *more]

    def write_calib(self, **arrays: Array) -> None:
        write_npz(self.calib, arrays)

    def write_eval(self, **arrays: Array) -> None:
        write_npz(self.eval, arrays)


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """``numpy.savez`` with names from a mapping; object arrays too."""
    np.savez(path, allow_pickle=True, **dict(arrays))


def samples(count: int = SAMPLES, seed: int = 1) -> Array:
    """Inputs (count, channels, side, side)."""
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype(np.float32)


def labels(count: int = SAMPLES) -> Array:
    """Every class in turn, (count,)."""
    return np.arange(count, dtype=np.int64) % CLASSES


def write_files(folder: Path) -> Files:
    """A folder in which the main job works."""
    files = Files(folder=folder)
    onnx.save(network(), files.net)
    files.write_calib(input=samples(16))
    files.write_eval(input=samples(), labels=labels())
    return files


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in ``folder``, with a module ``mine`` that is imported anew and leaves no trace in ``sys.path``."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def outcome(argv: list[str]) -> int:
    """The exit code, also where the parser itself exits (``--help``)."""
    try:
        return main(argv)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1
