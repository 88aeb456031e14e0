"""The pages on adding a scheme and a rounding method: their examples work as they stand there."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bitfront.core import (
    SCHEMES,
    CalibrationSettings,
    ConfigError,
    ContentStore,
    LoweringError,
    PrecisionConfig,
    Scheme,
)
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.rounding.gptq import proxy_loss
from bitfront.lowering.rounding.matrix import MatrixView
from bitfront.lowering.rounding.methods import ROUNDING_METHODS, SCALE_METHODS, RoundingProblem
from tests.lowering.candidates import expected_outputs, outputs_of, sqnr_db, uniform
from tests.lowering.rounding.cases import Case, layer_of
from tests.lowering.topologies import inputs_of, reference_of
from tests.search.command_line import outcome, write_files

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {"my_scheme": DOCS / "adding-a-scheme.md", "my_rounding": DOCS / "adding-a-rounding-method.md"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A person's folder with the pages' files in it; what they register is gone afterwards."""
    for name, page in PAGES.items():
        (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SCHEMES, "_schemes", dict(SCHEMES))
    monkeypatch.setattr(SCHEMES, "_descriptions", {text: SCHEMES.description(text) for text in SCHEMES})
    for name in PAGES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    methods = dict(ROUNDING_METHODS)
    yield tmp_path
    ROUNDING_METHODS.clear()
    ROUNDING_METHODS.update(methods)
    for name in PAGES:
        sys.modules.pop(name, None)


def lowerer_of(dialect: str, topology: str) -> Lowerer:
    reference = reference_of(topology)
    return Lowerer(reference, get_dialect(dialect), inputs_of(reference), CalibrationSettings(), ContentStore(None))


@pytest.mark.parametrize("page", PAGES.values(), ids=list(PAGES))
def test_a_page_is_short(page: Path) -> None:
    """Under 100 lines, words included."""
    assert len(page.read_text(encoding="utf-8").splitlines()) < 100


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("topology", ["gemm", "sequence_matmul", "chain"])
def test_the_scheme_is_offered_written_and_run(topology: str) -> None:
    """Matrix products take it, convolutions are told why not; the numbers are those of 4-bit weights."""
    lowerer = lowerer_of("my_scheme:DynamicDialect", topology)
    products = {layer.name for layer in lowerer.quantisable.layers if layer.op in ("Gemm", "MatMul")}
    schemes = uniform(lowerer, "int4:mse:dynamic")
    assert {name for name, scheme in schemes.items() if scheme.text == "int4:mse:dynamic"} == products
    for layer in lowerer.quantisable.layers:
        assert layer.name in products or "is for Gemm and MatMul" in layer.refused["int4:mse:dynamic"]
    model = lowerer.lower(schemes).data
    operators = [node.op_type for node in onnx.load_from_string(model).graph.node]
    assert operators.count("MatMulInteger") == len(products)
    found = outputs_of(model, inputs_of(lowerer.reference, seed=5))
    for wanted, actual in zip(expected_outputs(topology), found, strict=True):
        assert sqnr_db(wanted, actual) > 12


def test_the_scheme_goes_through_the_main_job(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's commands: a search that tries it, and a config whose model is rebuilt byte for byte."""
    files = write_files(folder)
    argv = files.argv("--backend", "my_scheme:DynamicBackend", "--max-drop", "0.5", "--trials", "4", "--quiet")
    assert outcome([*argv, "--precisions", "int4", "--sensitivity-samples", "2", "--out", str(folder / "run")]) == 0
    assert "int4:mse:dynamic" in (folder / "run" / "sensitivity.csv").read_text(encoding="utf-8")
    config = PrecisionConfig.load(folder / "run" / "configs" / "int4.json")
    dynamic = replace(config, layers={**config.layers, "fc": Scheme.parse("int4:mse:dynamic")})
    made = folder / "dynamic.json"
    made.write_text(dynamic.to_json(), encoding="utf-8")
    apply = ["apply", str(made), "--model", str(files.net), "--calib", str(folder / "calib.npz")]
    assert outcome([*apply, "-o", "out.onnx"]) == 2
    assert "add --dialect my_scheme:DynamicDialect" in capsys.readouterr().err
    for name in ("out.onnx", "again.onnx"):
        assert outcome([*apply, "-o", name, "--dialect", "my_scheme:DynamicDialect"]) == 0
    assert (folder / "out.onnx").read_bytes() == (folder / "again.onnx").read_bytes()
    assert "MatMulInteger" in {node.op_type for node in onnx.load(folder / "out.onnx").graph.node}


@pytest.mark.usefixtures("folder")
def test_the_rounding_method_lowers_the_error() -> None:
    """Of each row, below that of the nearest integers; columns of inputs that are always zero are the nearest."""
    module: Any = importlib.import_module("my_rounding")
    rng = np.random.default_rng(0)
    view = MatrixView.of(layer_of(Case(op="MatMul", shape=(24, 6), inputs=(), attributes={})))
    inputs = rng.normal(size=(24, 12)) @ rng.normal(size=(12, 200)) + 0.1 * rng.normal(size=(24, 200))
    inputs[5] = 0
    problem = RoundingProblem(
        view=view,
        rows=rng.normal(size=(1, 6, 24)),
        bits=4,
        group_size=None,
        min_scales=None,
        scale_method=SCALE_METHODS["mse"],
        hessian=2 * (inputs @ inputs.T)[None],
        mismatch=np.zeros((1, 24, 24)),
    )
    losses = []
    for solve in (module.quantease, ROUNDING_METHODS["nearest"].round):
        integers, scales = solve(problem)
        losses.append(proxy_loss(problem.rows - problem.element_scales(scales) * integers, 2 * inputs @ inputs.T))
    assert (losses[0] < 0.8 * losses[1]).all()


@pytest.mark.usefixtures("folder")
def test_the_rounding_method_is_a_scheme_s_part() -> None:
    """It is offered where GPTQ is, written alike, kept in configs by its name, and more exact than nearest."""
    lowerer = lowerer_of("my_rounding:QuanteaseDialect", "chain")
    texts = ("int4:mse+quantease", "int4:mse", "int4:gptq")
    models = {text: lowerer.lower(uniform(lowerer, text)).data for text in texts}
    graphs = [[node.op_type for node in onnx.load_from_string(models[text]).graph.node] for text in texts]
    assert graphs[0] == graphs[2]
    found = {
        text: sqnr_db(expected_outputs("chain")[0], outputs_of(model, inputs_of(lowerer.reference, seed=5))[0])
        for text, model in models.items()
    }
    assert found["int4:mse+quantease"] > found["int4:mse"]
    config = lowerer.config(uniform(lowerer, "int4:mse+quantease"))
    assert PrecisionConfig.from_json(config.to_json(), "c") == config
    assert '"rounding": "mse+quantease"' in config.to_json()


@pytest.mark.usefixtures("folder")
def test_the_rounding_method_goes_through_the_main_job(tmp_path: Path) -> None:
    """The page's command; the sensitivities have the scheme by its text."""
    files = write_files(tmp_path)
    argv = files.argv("--backend", "my_rounding:QuanteaseBackend", "--max-drop", "0.5", "--trials", "4", "--quiet")
    assert outcome([*argv, "--precisions", "int4", "--sensitivity-samples", "2", "--out", str(tmp_path / "run")]) == 0
    assert "int4:mse+quantease" in (tmp_path / "run" / "sensitivity.csv").read_text(encoding="utf-8")


def test_what_nobody_registered_is_named() -> None:
    """A scheme of a package that was not imported is refused by its name, not guessed."""
    lowerer = lowerer_of("ort-cpu", "chain")
    with pytest.raises(ConfigError, match="'int4:quantease' is no layer scheme"):
        Scheme.parse("int4:quantease")
    scheme = Scheme.parse("int4:mse+quantease")
    with pytest.raises(LoweringError, match=r"cannot be int4:mse\+quantease in dialect 'ort-cpu'"):
        lowerer.lower(dict.fromkeys((layer.name for layer in lowerer.quantisable.layers), scheme))
