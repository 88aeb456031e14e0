"""``search apply`` on configs of model variants: the run's own bytes, from its graph or by its recipe."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import pytest

from bitfront.core import PrecisionConfig
from bitfront.lowering import export
from bitfront.search.passes.prune import PrunePass
from bitfront.search.passes.qat import QatPass
from bitfront.search.variants.variant_files import save_variant, variant_file
from tests.search.command_line import enter, outcome
from tests.search.variants import making

MODULE = """
from tests.search.variants.making import TorchWorkload

workload = TorchWorkload()
tuned = TorchWorkload(seed=3)
"""


@dataclass(frozen=True)
class Saved:
    """A run folder with one config of a model variant, and the model it stands for."""

    folder: Path
    config: PrecisionConfig
    model: bytes

    @property
    def path(self) -> Path:
        return self.folder / "configs" / "p01.json"

    @property
    def network(self) -> Path:
        assert self.config.recipe is not None
        return self.folder / variant_file(self.config.recipe)

    def argv(self, *more: str, out: str = "out.onnx") -> list[str]:
        return ["apply", str(self.path), "-o", out, *more]


@pytest.fixture(scope="module", params=["distill", "qat"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("run")
    made = making.pipeline(folder / "cache")
    steps = [PrunePass().step({"conv1": 0.5}), making.distilled(made, 4)]
    network = made.make(steps)
    schemes = making.schemes_of(network.lowerer, "int8:mse")
    if request.param == "qat":
        network = made.make((*network.steps, QatPass().step(made.context, schemes, 3)))
    given = making.given()
    config = replace(
        network.lowerer.config(schemes),
        model=given.fingerprint,
        architecture=given.architecture,
        recipe=network.recipe,
    )
    saved = Saved(folder=folder, config=config, model=network.lowerer.lower(schemes).data)
    assert folder / save_variant(folder, network) == saved.network
    saved.path.parent.mkdir()
    saved.path.write_text(config.to_json())
    return saved


@pytest.fixture
def here(run: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Saved:
    """A copy of the run in the working folder, beside a module ``mine`` with the workload."""
    enter(tmp_path, monkeypatch)
    (tmp_path / "mine.py").write_text(MODULE)
    shutil.copytree(run.folder, tmp_path / "run")
    return replace(run, folder=tmp_path / "run")


@pytest.mark.parametrize("more", [(), ("--repeat-training",)], ids=["graph", "repeated"])
def test_apply_is_byte_for_byte(here: Saved, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """From the graph, and by following the recipe with the run's trainings."""
    assert outcome(here.argv("--workload", "mine:workload", *more)) == 0
    assert Path("out.onnx").read_bytes() == here.model
    assert capsys.readouterr().err == ""


def test_without_the_run_folder(here: Saved) -> None:
    """The config alone is enough: everything is trained again, to the same bytes."""
    shutil.rmtree(here.folder / "cache")
    here.network.unlink()
    assert outcome(here.argv("--workload", "mine:workload")) == 0
    assert Path("out.onnx").read_bytes() == here.model


def test_given_as_onnx(here: Saved, capsys: pytest.CaptureFixture[str]) -> None:
    """The given network as an ONNX file does beside the graph, which may be named; alone it cannot be trained."""
    workload = making.workload
    program = export._program(workload.model, workload.calibration, "small", None, {})
    onnx.save(export._optimised(program), "given.onnx")
    shutil.move(here.network, "moved.onnx")
    assert outcome(here.argv("--model", "given.onnx")) == 2
    assert "takes the torch module" in capsys.readouterr().err
    assert outcome(here.argv("--model", "given.onnx", "--network", "moved.onnx")) == 0
    assert Path("out.onnx").read_bytes() == here.model


def test_other_files_are_refused(here: Saved, capsys: pytest.CaptureFixture[str]) -> None:
    """Another network than the recipe's, and no network at all, are refused by name."""
    onnx.save(making.given().proto, "given.onnx")
    Path("text.onnx").write_text("text")
    for name, words in (("given.onnx", "not the network that"), ("text.onnx", "cannot read"), ("no.onnx", "cannot")):
        assert outcome(here.argv("--workload", "mine:workload", "--network", name)) == 2
        said = capsys.readouterr().err
        assert words in said
        assert name in said
    assert not Path("out.onnx").exists()


def test_other_weights(here: Saved, capsys: pytest.CaptureFixture[str]) -> None:
    """On a fine-tuned checkpoint the recipe is followed anew where that is asked for, and it is said."""
    assert outcome(here.argv("--workload", "mine:tuned")) == 2
    assert "--allow-new-weights" in capsys.readouterr().err
    assert outcome(here.argv("--workload", "mine:tuned", "--allow-new-weights")) == 0
    assert "other weights than in the run" in capsys.readouterr().err
    assert Path("out.onnx").read_bytes() != here.model


def test_options_for_made_networks_alone(here: Saved, capsys: pytest.CaptureFixture[str]) -> None:
    """On a config of the given network, the options of made ones are refused."""
    here.path.write_text(replace(here.config, recipe=None).to_json())
    assert outcome(here.argv("--workload", "mine:workload", "--repeat-training")) == 2
    assert "which no pass has changed" in capsys.readouterr().err
