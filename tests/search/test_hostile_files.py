"""Configs and run folders from elsewhere, at the command line: refused by name with exit code 2, or taken."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import onnx
import optuna
import pytest

from bitfront.core import ConfigError, PrecisionConfig, UsageError
from bitfront.core.backends_file import BACKENDS_FORM
from bitfront.core.config import CONFIG_FORM
from bitfront.core.measurement_file import MEASUREMENT_FORM
from bitfront.search.run_folder.identity import RUN_FORM, check_folder
from bitfront.search.run_folder.storage import default_storage
from bitfront.search.schemas import schema_texts, write_schemas
from tests.odd_json import mutants
from tests.report import synthetic_passes
from tests.report.test_comparison import write as write_comparison
from tests.search.command_line import Files, outcome, write_files

SCHEMAS = Path(__file__).resolve().parent.parent.parent / "docs" / "schemas"
OPTIONS = ("--backend", "fake", "--trials", "6", "--sensitivity-samples", "8", "--max-drop", "0.9", "--quiet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A finished search and its files."""

    files: Files
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "configs" / "int8.json"

    def apply(self, out: Path, *more: str) -> int:
        return outcome(["apply", str(self.config), "--model", str(self.files.net), "-o", str(out), *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    place = tmp_path_factory.mktemp("hostile")
    ran = Ran(files=write_files(place), folder=place / "run")
    assert outcome(ran.files.argv(*OPTIONS, "--out", str(ran.folder))) == 0
    return ran


@pytest.fixture
def ran(finished: Ran, tmp_path: Path) -> Ran:
    """A copy of its own."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return replace(finished, folder=tmp_path / "run")


def test_odd_configs_are_refused_by_name(ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``apply`` either takes a changed config or names it; an output is written in the first case alone."""
    text, codes = ran.config.read_text(), []
    for mutant in mutants(text, 150, seed=11):
        ran.config.write_text(mutant.text)
        out = tmp_path / "out.onnx"
        codes.append(ran.apply(out))
        said = capsys.readouterr().err
        assert codes[-1] in (0, 2), mutant.id
        assert (codes[-1] == 0) == out.exists(), mutant.id
        assert codes[-1] == 0 or str(ran.config) in said, (mutant.id, said)
        assert "\x1b" not in said
        out.unlink(missing_ok=True)
    assert codes.count(2) > 100


def test_odd_measurements_are_refused_by_name(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    """``report`` either renders a changed run or names its file."""
    path = ran.folder / "measurement.json"
    codes = []
    for mutant in mutants(path.read_text(), 60, seed=12):
        path.write_text(mutant.text)
        codes.append(outcome(["report", str(ran.folder)]))
        said = capsys.readouterr().err
        assert codes[-1] in (0, 2), mutant.id
        assert codes[-1] == 0 or "measurement.json" in said, (mutant.id, said)
    assert codes.count(2) > 35


def test_odd_identities_are_refused_by_name(ran: Ran) -> None:
    """``--resume`` takes a run.json or names it."""
    path = ran.folder / "run.json"
    text = path.read_text()
    identity = json.loads(text)["identity"]
    refused = 0
    for mutant in mutants(text, 150, seed=13):
        path.write_text(mutant.text)
        try:
            check_folder(ran.folder, identity, resume=True)
        except UsageError as error:
            refused += str(path) in error.message or "about something else" in error.message
    assert refused > 100


def test_names_in_a_study_lead_nowhere(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    """A trial's name becomes that of files: one with a path in it is refused, and nothing is written outside."""
    storage = optuna.storages.RDBStorage(default_storage(ran.folder))
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    trial = next(trial for trial in study.get_trials() if trial.user_attrs.get("name") == "int8")
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'name' AND trial_id = ?",
            (json.dumps("../../outside"), trial._trial_id),
        )
    storage.remove_session()
    storage.engine.dispose()
    assert outcome(ran.files.argv(*OPTIONS, "--out", str(ran.folder), "--resume")) == 2
    assert f"is damaged: trial {trial.number} is not as it was written" in capsys.readouterr().err
    assert not (ran.folder.parent / "outside.json").exists()


def test_what_is_no_network_of_a_run(ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model variant's file that is a pipe is not waited for, and one that would read other files is refused."""
    data = json.loads(ran.config.read_text())
    steps = [{"pass": "prune", "options": {}}]
    data["recipe"] = {"steps": steps, "data": "0" * 64, "network": "e" * 64, "architecture": "0" * 64}
    ran.config.write_text(json.dumps(data))
    os.mkfifo(tmp_path / "pipe.onnx")
    assert ran.apply(tmp_path / "out.onnx", "--network", str(tmp_path / "pipe.onnx")) == 2
    assert "pipe.onnx': expected a regular file" in capsys.readouterr().err
    model = onnx.load(ran.files.net)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location="/etc/hostname")
    model.graph.initializer[0].ClearField("raw_data")
    (tmp_path / "reads.onnx").write_bytes(model.SerializeToString())
    assert ran.apply(tmp_path / "out.onnx", "--network", str(tmp_path / "reads.onnx")) == 2
    assert "tensor 'conv.weight' keeps its data in another file" in capsys.readouterr().err


def validator(name: str) -> Any:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_schemas_are_current(tmp_path: Path) -> None:
    """``python -m bitfront.search.schemas docs/schemas`` would change nothing."""
    write_schemas(tmp_path)
    assert {path.name: path.read_text() for path in SCHEMAS.iterdir()} == schema_texts()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == schema_texts()


def test_saved_files_keep_to_their_schemas(ran: Ran, tmp_path: Path) -> None:
    """Everything a run writes, and runs with passes and on several backends."""
    for path in (ran.folder / "configs").iterdir():
        validator("config").validate(json.loads(path.read_text()))
    validator("run").validate(json.loads((ran.folder / "run.json").read_text()))
    (tmp_path / "several").mkdir()
    write_comparison(tmp_path / "several")
    validator("backends").validate(json.loads((tmp_path / "several" / "backends.json").read_text()))
    for folder in (ran.folder, synthetic_passes.passes_run(tmp_path / "passes")):
        validator("measurement").validate(json.loads((folder / "measurement.json").read_text()))


def test_what_a_schema_refuses_is_refused(ran: Ran, tmp_path: Path) -> None:
    """Reading is at least as strict as what is published."""
    (tmp_path / "several").mkdir()
    write_comparison(tmp_path / "several")
    files = (
        (CONFIG_FORM, ran.config),
        (MEASUREMENT_FORM, ran.folder / "measurement.json"),
        (RUN_FORM, ran.folder / "run.json"),
        (BACKENDS_FORM, tmp_path / "several" / "backends.json"),
    )
    for form, path in files:
        published = validator(form.name)
        refused = 0
        for mutant in mutants(path.read_text(), 80, seed=14):
            if not published.is_valid(json.loads(mutant.text)):
                with pytest.raises((form.failure, form.version_failure), match=path.name):
                    form.decode(mutant.text, path.name)
                refused += 1
        assert refused > 20, form.name


def test_golden_bytes(ran: Ran) -> None:
    """A config that is read is written to the same bytes, and says no more than its file."""
    for path in (ran.folder / "configs").iterdir():
        assert PrecisionConfig.load(path).to_json() == path.read_text()
    with pytest.raises(ConfigError, match=r"none\.json"):
        PrecisionConfig.load(ran.folder / "none.json")
