"""Searches in which passes take part: whole runs on a small residual network."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bitfront.core import Constraints, ContentStore, PrecisionConfig
from bitfront.core.point import Point
from bitfront.core.variant_info import PRUNED, SPARSE, STUDENT
from bitfront.lowering.apply import apply_config
from bitfront.passes.data import TrainingData
from bitfront.passes.prune_groups import find_prune_groups
from bitfront.report.results import RunResults
from bitfront.search.measuring.holdout import split_holdout
from bitfront.search.options import RunOptions
from bitfront.search.passes.distill import DistillPass
from bitfront.search.passes.options import PassOptions
from bitfront.search.passes.prune import PrunePass
from bitfront.search.passes.qat import QatPass
from bitfront.search.passes.sparse import SparsePass
from bitfront.search.run import RunResult
from bitfront.search.variants.variant_files import load_variant_file, variant_file
from bitfront.sensitivity.divergence_metric import KL
from bitfront.sensitivity.sparsity import score_sparsities
from tests.references import INTERPRETER
from tests.search.command_line import enter, outcome
from tests.search.execution.joint_runs import ResidualWorkload, options, quick, search
from tests.search.toy_runs import Heard

AMPLE_S = 600.0  # of training: what ends it is its number of steps
WORKLOAD = "tests.search.execution.joint_runs:workload"


@dataclass(frozen=True)
class Found:
    """A run that came to its end."""

    outcome: RunResult
    results: RunResults
    trainings: list[str]

    def points(self, kind: str) -> list[Point]:
        """Those on networks of a kind."""
        return [p for p in self.results.points.values() if p.network is not None and p.network.kind == kind]

    def rows(self) -> list[dict[str, str]]:
        """Of trials.csv."""
        with (self.outcome.folder / "trials.csv").open(newline="") as file:
            return list(csv.DictReader(file))


def searched(asked: RunOptions) -> Found:
    with quick() as trainings:
        found = search(asked)
    return Found(found, RunResults.load(asked.out), trainings)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Prunings, 2:4 weights and a student."""
    passes = PassOptions(passes=(PrunePass(), DistillPass(), SparsePass()), train_budget_s=AMPLE_S)
    return searched(options(tmp_path_factory.mktemp("joint") / "run", passes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Quantisation-aware training alone."""
    passes = PassOptions(passes=(QatPass(),), train_budget_s=AMPLE_S)
    return searched(options(tmp_path_factory.mktemp("qat") / "run", passes, trials=6))


def applied(found: Found, point: Point, *more: str) -> bytes:
    """What ``search apply`` writes in the working folder."""
    argv = ["apply", str(found.outcome.folder / str(point.config)), "-o", "out.onnx", "--workload", WORKLOAD, *more]
    assert outcome(argv) == 0
    return Path("out.onnx").read_bytes()


def test_folder_is_complete(found: Found) -> None:
    """Every file is there, and reads back as what the run returned."""
    assert found.outcome.exit_code == 0
    assert found.results.complete
    assert dict(found.results.points) == dict(found.outcome.points)
    for name in ("report.html", "trials.csv", "sensitivity.csv", "sparsity.csv", "pareto.csv", "study.db"):
        assert (found.outcome.folder / name).stat().st_size > 0


def test_pruned_networks_are_points(found: Found) -> None:
    """They say what went and what stayed, how they were trained, and what that came to."""
    points = found.points(PRUNED)
    assert points
    for point in points:
        network = point.network
        assert network is not None
        assert 0 < network.macs_share < 1
        assert 0 < network.parameters_share < 1
        assert network.pruned
        assert {group.name for group in network.pruned} <= {"block1", "block2", "block1.conv1", "block2.conv1"}
        assert all(group.kept == (0 if group.branch else group.channels // 2) for group in network.pruned)
        assert network.label.startswith("pruned ")
        trainings = [step for step in network.steps if step.name == "distill"]
        assert all(step.steps > 0 and step.seconds > 0 and step.loss is not None for step in trainings)
        assert network.trained_steps == sum(step.steps for step in trainings)
        assert network.train_s == pytest.approx(sum(step.seconds for step in trainings))
        assert network.file is not None
        assert (found.outcome.folder / network.file).is_file()


def test_tables_say_which_network(found: Found) -> None:
    """A trial on a pruned network has its key and its pruning, one on the given network neither."""
    rows = found.rows()
    pruned = [row for row in rows if row["pruning"] != "{}"]
    assert pruned
    assert all(row["network"] for row in pruned)
    assert not any(row["network"] for row in rows if row["origin"] in ("baseline", "ladder", "split", "solver"))


def test_what_was_timed_alone_is_no_point(found: Found) -> None:
    """Prunings that were timed to learn what they save are neither scored nor reported, and count as no trial."""
    rows = found.rows()
    costs = [row for row in rows if row["origin"] == "cost"]
    assert costs
    assert {row["state"] for row in costs} == {"timed"}
    assert not any(row["accuracy"] for row in costs)
    assert not {f"p{int(row['number']):02d}" for row in costs} & set(found.results.points)
    assert (
        sum(row["state"] not in ("timed", "repeated") for row in rows if row["origin"] in ("baseline", "ladder")) < 14
    )


def test_prunings_are_scored_on_what_nothing_was_trained_on(found: Found) -> None:
    """On the search's part of the evaluation data, by each level before training and the highest one after."""
    work, asked = ResidualWorkload(), options(found.outcome.folder, PassOptions(passes=(PrunePass(),)))
    search_part, _ = split_holdout(work.evaluation, asked.holdout, asked.seed)
    with (found.outcome.folder / "sparsity.csv").open(newline="") as file:
        rows = {(row["group"], float(row["sparsity"])): row for row in csv.DictReader(file) if not row["dropped"]}
    table = score_sparsities(
        work.model,
        find_prune_groups(work.model, work.training),
        TrainingData(inputs=work.training),
        search_part.inputs,
        levels=(0.5,),
        round_to=4,
        samples=asked.sensitivity_samples,
        divergence_metric=KL,
        store=ContentStore(None),
        key="again",
        on_step=lambda _: None,
    )
    again = {(row.group, row.sparsity): row.loss for row in table.rows if not row.dropped}
    assert {key: float(row["loss"]) for key, row in rows.items()} == pytest.approx(again, rel=1e-3)
    assert max(again.values()) > 0
    assert any(float(row["trained"] or "nan") < float(row["loss"]) for row in rows.values())


def test_what_training_bought_is_said(found: Found) -> None:
    """Networks that were recovered were scored in FP32 after all of it, pruned ones before any training too."""
    rows = found.rows()
    recovered = {row["pruning"] for row in rows if row["origin"] == "recovered"}
    assert recovered
    assert recovered - {"{}"} <= {row["pruning"] for row in rows if row["origin"] == "one-shot"}


def test_limits_hold_for_every_network_that_is_made_on_purpose(found: Found, tmp_path: Path) -> None:
    """Where size is limited below what precisions reach, a faster network is solved for within that limit too."""
    limit = 0.85 * min(int(row["size_bytes"]) for row in found.rows() if row["origin"] == "baseline")
    passes = PassOptions(passes=(PrunePass(), DistillPass()), train_budget_s=AMPLE_S)
    limited = searched(options(tmp_path / "run", passes, budget=Constraints(size_bytes=limit), trials=20))
    # The first candidate on each network is what was solved for.
    rows = [row for row in reversed(limited.rows()) if row["origin"] == "prune"]
    sizes = {row["network"]: int(row["size_bytes"]) for row in rows}
    assert len(sizes) > 1
    assert max(sizes.values()) <= 1.05 * limit


def test_students_and_sparse_networks_have_spaces_of_their_own(found: Found) -> None:
    """Their ids carry the architecture's name, and a student's layers are its own."""
    students = found.points(STUDENT)
    assert students
    for point in students:
        assert point.id.startswith("Tiny-1-p")
        assert point.network is not None
        assert point.network.label == "student Tiny-1"
        config = PrecisionConfig.load(found.outcome.folder / str(point.config))
        assert set(config.layers) == {"conv", "fc"}
    sparse = found.points(SPARSE)
    assert sparse
    for point in sparse:
        assert point.id.startswith("2of4-p")
        assert point.network is not None
        assert not point.network.pruned
        assert point.network.macs_share == 1


def test_training_is_accounted_for(found: Found) -> None:
    """The run says what was spent, on how many networks, and which were trained on."""
    train = found.results.train
    assert train is not None
    assert train.budget_s == AMPLE_S
    assert 0 < train.spent_s < AMPLE_S
    assert 0 < train.trained <= train.networks
    assert {rung.network for rung in train.history} >= {"2:4", "student Tiny-1"}
    assert train.promoted == sum(rung.kept for rung in train.history)
    assert len(set(found.trainings)) == len(found.trainings), "a training was done twice"


def test_configs_rebuild_their_models(found: Found) -> None:
    """With the run's graphs, byte for byte."""
    folder, calibration = found.outcome.folder, ResidualWorkload().calibration
    for point in found.results.points.values():
        config = PrecisionConfig.load(folder / str(point.config))
        if config.recipe is not None:
            reference = load_variant_file(folder / variant_file(config.recipe), config.recipe, INTERPRETER)
            store = ContentStore(folder / "cache")
            model = apply_config(config, reference, calibration=calibration, store=store, allow_new_weights=False).data
            assert model == (folder / str(point.model)).read_bytes()


@pytest.mark.parametrize(
    "kind",
    [
        PRUNED,
        STUDENT,
        SPARSE,
    ],
)
def test_recipes_are_followed_again(kind: str, found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the trainings in the run's cache, byte for byte."""
    enter(tmp_path, monkeypatch)
    point = found.points(kind)[0]
    with quick() as trainings:
        again = applied(found, point, "--repeat-training")
    assert not trainings
    assert again == (found.outcome.folder / str(point.model)).read_bytes()


def test_costs_take_few_architectures(found: Found) -> None:
    """Every branch is gone in some of the networks that are only timed, and at most three sets of branches are."""
    prunings = [json.loads(row["pruning"]) for row in found.rows() if row["origin"] == "cost"]
    gone = {frozenset(name for name, part in pruning.items() if part == 1) for pruning in prunings}
    assert len(gone) <= 3
    assert frozenset().union(*gone) == {"block1", "block2"}


def test_artifacts_are_trained(trained: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained as it is quantised is a point whose config holds the recipe and gives its model again."""
    enter(tmp_path, monkeypatch)
    assert trained.outcome.exit_code == 0
    points = [p for p in trained.results.points.values() if p.network is not None and p.network.artifact_trained]
    assert points
    for point in points:
        config = PrecisionConfig.load(trained.outcome.folder / str(point.config))
        assert config.recipe is not None
        assert [step.name for step in config.recipe.steps] == ["qat"]
        assert point.network is not None
        assert point.network.label == "given qat"
        assert point.network.macs_share == 1
        assert point.network.trained_steps > 0
        assert applied(trained, point) == (trained.outcome.folder / str(point.model)).read_bytes()
    assert len(trained.trainings) >= len({point.network.label for point in points if point.network})


def test_a_tiny_training_budget(tmp_path: Path) -> None:
    """The run ends well with networks that had next to no training; what is over the budget is one training's step."""
    passes = PassOptions(passes=(PrunePass(), DistillPass()), train_budget_s=0.001)
    found = searched(options(tmp_path / "run", passes, trials=7))
    assert found.outcome.exit_code == 0
    train = found.results.train
    assert train is not None
    assert len(found.trainings) <= 1
    assert all(point.network.trained_steps <= 20 for point in found.results.points.values() if point.network)


class Killer(Heard):
    """Interrupts the run when a trial of a network that was trained on is done."""

    def step(self, note: str) -> None:
        if "(trained)" in note:
            raise KeyboardInterrupt


def test_interrupted_and_resumed(tmp_path: Path) -> None:
    """Trials that were done are kept, and no training is done again."""
    asked = options(
        tmp_path / "run", PassOptions(passes=(PrunePass(), DistillPass()), train_budget_s=AMPLE_S), trials=8
    )
    with quick() as before:
        stopped = search(asked, Killer())
    assert stopped.exit_code == 130
    first = RunResults.load(asked.out)
    assert not first.complete
    assert before
    assert all(math.isfinite(score.trained) for score in first.sparsities if math.isfinite(score.loss))
    found = searched(replace(asked, resume=True))
    assert found.outcome.exit_code in (0, 3)
    assert found.results.complete
    assert not set(before) & set(found.trainings)
    known = [(trial.number, trial.origin, trial.variant, dict(trial.schemes)) for trial in found.results.trials]
    assert all((t.number, t.origin, t.variant, dict(t.schemes)) in known for t in first.trials)
    assert first.train is not None
    assert found.results.train is not None
    assert found.results.train.spent_s >= first.train.spent_s
