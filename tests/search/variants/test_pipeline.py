"""Networks follow from their recipe alone, trainings are done once, and a budget over all of them holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from bitfront.core import ConfigError, ContentStore, Recipe, RecipeStep, Scheme
from bitfront.lowering.calibration import run_network
from bitfront.lowering.rounding.methods import SPARSE
from bitfront.passes import train as training
from bitfront.passes.checkpoint import StoredCheckpoint
from bitfront.passes.data import TrainingData
from bitfront.search.measuring.stopwatch import Stopwatch
from bitfront.search.passes.distill import DistillPass
from bitfront.search.passes.options import PassOptions
from bitfront.search.passes.prune import PrunePass
from bitfront.search.passes.qat import QatPass
from bitfront.search.passes.sparse import SparsePass, SparsePattern
from bitfront.search.passes.student import StudentPass
from bitfront.search.passes.trainings import TrainingBudget
from bitfront.search.variants.builder import VariantBuilder, VariantStore
from bitfront.search.variants.pipeline import PassPipeline, Variant
from tests.passes.nets import same_weights
from tests.references import INTERPRETER
from tests.search.variants.making import Small, distilled, pipeline, samples, schemes_of

STEPS = 45


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the training steps that were really done."""
    done: list[int] = []
    real = training._Run.update

    def counted(run: Any, *rest: Any) -> None:
        done.append(run.step)
        real(run, *rest)

    monkeypatch.setattr(training._Run, "update", counted)
    return done


def trained(made: PassPipeline, steps: int) -> Any:
    return made.module_of((pruned(), distilled(made, steps)))


def pruned() -> RecipeStep:
    return PrunePass().step({"conv1": 0.5})


def same(one: Variant, other: Variant) -> bool:
    assert one.module is not None
    assert other.module is not None
    return same_weights(one.module, other.module) and one.recipe == other.recipe


def artifact(network: Variant, text: str = "int8:mse") -> bytes:
    return network.lowerer.lower(schemes_of(network.lowerer, text)).data


def check_lowered(network: Variant) -> None:
    """The lowered graph is the module's."""
    inputs = samples(8, 5)
    assert network.module is not None
    with torch.no_grad():
        wanted = network.module(torch.from_numpy(np.array(inputs["images"]))).numpy()
    (found,) = run_network(network.lowerer.reference.proto, inputs, INTERPRETER)
    np.testing.assert_allclose(np.asarray(found, np.float32), wanted, atol=1e-5)


def test_the_given_network() -> None:
    """Without steps it is the given one, with its own lowerer and no recipe."""
    found = pipeline().make(())
    assert found.recipe is None
    assert found.seconds == 0
    check_lowered(found)


def test_pruned_and_trained(tmp_path: Path, updates: list[int]) -> None:
    """A recipe gives the same network in another process without any training, and its JSON is the recipe again."""
    first = pipeline(tmp_path)
    found = first.make((pruned(), distilled(first, STEPS)))
    assert isinstance(found.module, Small)
    assert found.module.conv1.out_channels == 8
    assert [step.name for step in found.steps] == ["prune", "distill"]
    assert len(found.losses) == 1
    assert len(updates) == STEPS
    check_lowered(found)
    assert found.recipe is not None
    assert found.recipe.network == found.lowerer.reference.fingerprint
    again = pipeline(tmp_path)
    repeated = again.make(Recipe.from_json(found.recipe.to_json()).steps)
    assert len(updates) == STEPS
    assert same(found, repeated)
    assert artifact(found) == artifact(repeated)
    assert again.context.budget.spent_s == first.context.budget.spent_s == found.seconds > 0
    further = again.make((*found.steps, distilled(again, STEPS)))
    assert len(updates) == 2 * STEPS
    assert not same(found, further)


def test_killed_in_the_middle(tmp_path: Path, updates: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted training goes on from its last state to the same weights, and counts what it took before."""
    wanted = pipeline().make((distilled(pipeline(), STEPS),))
    real = training._Run.update

    def interrupted(run: Any, *rest: Any) -> None:
        if run.step == 30:
            raise KeyboardInterrupt
        real(run, *rest)

    updates.clear()
    killed = pipeline(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            killed.make((distilled(killed, STEPS),))
    resumed = pipeline(tmp_path)
    assert same(resumed.make((distilled(resumed, STEPS),)), wanted)
    assert updates == [*range(30), *range(20, STEPS)]


def test_the_time_limit_ends_training_too() -> None:
    """Whichever leaves less decides; what a training has taken already is its own."""
    budget = TrainingBudget(30)
    budget.note("one", 10)
    assert (budget.left_s, budget.left_for("one")) == (20, 30)
    budget.time_left = lambda: 5
    assert (budget.left_s, budget.left_for("one")) == (5, 15)
    budget.time_left = lambda: -1
    assert (budget.left_s, budget.left_for("one")) == (0, 10)
    unlimited = TrainingBudget()
    assert unlimited.left_s is None
    unlimited.time_left = lambda: 5
    assert unlimited.left_s == 5


def test_budget(tmp_path: Path, updates: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that is cut short says where; with that end it is repeated bit by bit; then nothing is left."""
    now = iter(range(10**6))
    monkeypatch.setattr(training.Supervision.__init__, "__kwdefaults__", {**_defaults(), "clock": lambda: next(now)})
    first = pipeline(tmp_path, limit_s=30)
    cut = first.make((pruned(), distilled(first, STEPS)))
    done = cut.steps[-1].ended_at
    assert done is not None
    assert 0 < done < STEPS
    assert first.context.budget.left_s == 0
    left_out = first.make((*cut.steps, distilled(first, STEPS, seed=1)))
    assert left_out.steps == cut.steps
    resumed = pipeline(tmp_path, limit_s=30)
    assert same(resumed.make((pruned(), distilled(resumed, STEPS))), cut)
    assert resumed.context.budget.spent_s == first.context.budget.spent_s
    updates.clear()
    anew = pipeline(limit_s=1)
    assert same(anew.make(cut.steps), cut)
    assert len(updates) == done
    longer = pipeline(tmp_path, limit_s=10_000)
    whole = longer.make((pruned(), distilled(longer, STEPS)))
    assert whole.steps[-1].ended_at is None
    assert updates[done:] == list(range(done, STEPS))


def _defaults() -> dict[str, Any]:
    return dict(training.Supervision.__init__.__kwdefaults__ or {})


def test_trained_for_a_score(tmp_path: Path, updates: list[int]) -> None:
    """Another process finds the training done; a budget with no time for all of the steps gives no network."""
    network = trained(pipeline(tmp_path), 12)
    assert isinstance(network, Small)
    assert network.conv1.out_channels == 8
    assert updates == list(range(12))
    again = trained(pipeline(tmp_path), 12)
    assert again is not None
    assert same_weights(network, again)
    assert len(updates) == 12
    assert trained(pipeline(tmp_path / "other", limit_s=0), 12) is None
    assert trained(pipeline(tmp_path / "short", limit_s=1e-6), 60) is None


@pytest.mark.parametrize("done", [1, 20, 31])
def test_ended_at(done: int, updates: list[int]) -> None:
    """A step with an end trains to exactly there, and again after it was killed at its last state."""
    store = ContentStore(None)
    first = pipeline(store=store)
    step = distilled(first, STEPS).ending_at(done)
    found = first.make((step,))
    assert updates == list(range(done))
    assert found.steps == (step,)
    for name in [name for name in store._memory if name.startswith("trained-")]:
        del store._memory[name]
    again = pipeline(store=store)
    assert same(again.make((step,)), found)


@pytest.mark.parametrize("text", ["2:4", "0.5"])
def test_zeros_stay_zeros(text: str) -> None:
    """Training after zeros keeps them, what is exported has them baked in, and rounding leaves them."""
    made = pipeline()
    found = made.make((SparsePass().step(SparsePattern(text)), distilled(made, 4)))
    assert found.module is not None
    weights = [tensor for tensor in found.module.parameters() if tensor.dim() > 1]
    zeros = [part == 0 for part in weights]
    assert sum(int(part.sum()) for part in zeros) == pytest.approx(0.5 * sum(w.numel() for w in weights), rel=0.1)
    rounded, sparse = found.lowerer.rounded(Scheme.parse("int4:gptq")), 0
    for layer in found.lowerer.quantisable.layers:
        value = np.asarray(
            next(
                numpy_helper.to_array(tensor)
                for tensor in found.lowerer.reference.proto.graph.initializer
                if tensor.name == layer.weight
            )
        )
        if np.mean(value == 0) >= SPARSE:
            assert not rounded[layer.name].integers[value == 0].any()
            sparse += 1
    assert sparse


def test_two_of_four_are_zero() -> None:
    """In every four neighbours along the inputs, before training and after."""
    made = pipeline()
    found = made.make((SparsePass().step(SparsePattern("2:4")), distilled(made, 4)))
    assert isinstance(found.module, Small)
    weight = found.module.conv1.weight.detach().reshape(16, 2, 4, 9)
    assert ((weight != 0).sum(2) <= 2).all()
    assert (weight != 0).any()
    check_lowered(found)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.lowerer.reference.proto.graph.initializer}
    assert np.mean(values["conv1.weight"] == 0) == 0.5


def test_student(updates: list[int]) -> None:
    """A student starts from its own weights and learns from the given network."""
    made = pipeline()
    found = made.make((StudentPass().step("Tiny-1"), distilled(made, 40)))
    check_lowered(found)
    assert len(updates) == 40
    assert [layer.name for layer in found.lowerer.quantisable.layers] == ["conv", "fc"]
    with pytest.raises(ConfigError, match=r"students \(Tiny-1\) as the first step, got 'other'"):
        made.make((StudentPass().step("other"),))


def test_trained_as_quantised(tmp_path: Path, updates: list[int]) -> None:
    """After quantisation-aware training the lowerer writes what was trained, from the store too; nothing can follow."""
    first = pipeline(tmp_path)
    before = first.make((pruned(),))
    step = QatPass().step(first.context, schemes_of(before.lowerer, "int8:mse"), 25)
    found = first.make((*before.steps, step))
    assert found.module is None
    assert artifact(found) != artifact(before)
    assert len(updates) == 25
    again = pipeline(tmp_path)
    repeated = again.make(found.steps)
    assert len(updates) == 25
    assert repeated.recipe == found.recipe
    assert artifact(found) == artifact(repeated)
    onnx.checker.check_model(onnx.load_from_string(artifact(found)))
    with pytest.raises(ConfigError, match="cannot follow 'qat'"):
        again.make((*found.steps, distilled(again, 2)))


def test_data_and_options_tell_trainings_apart(updates: list[int]) -> None:
    """Another seed is another training."""
    made = pipeline()
    one, other = (made.make((distilled(made, 2, seed=seed),)) for seed in (0, 1))
    assert len(updates) == 4
    assert not same(one, other)


def test_checkpoint_is_in_the_store(tmp_path: Path) -> None:
    """States are where a resumed run looks for them."""
    made = pipeline(tmp_path)
    made.make((distilled(made, 2),))
    (path,) = tmp_path.glob("training-*.npz")
    assert StoredCheckpoint(ContentStore(tmp_path), path.stem.partition("-")[2]).load() is not None


def test_the_pace_is_one_network_s_on_its_own_data() -> None:
    """A step takes as long as the network and its inputs are large: its key names both."""
    store = ContentStore(None)
    for fingerprint, seed in (("one", 3), ("one", 9), ("other", 3)):
        made = pipeline(store=store)
        made.context = replace(made.context, data=TrainingData(inputs=samples(64, seed)), fingerprint=fingerprint)
        options = PassOptions(passes=(DistillPass(),))
        builder = VariantBuilder(options=options, pipeline=made, variants=VariantStore(made, store, Stopwatch()))
        assert builder.seconds_per_step > 0
    assert len([name for name in store._memory if name.startswith("pace-")]) == 3
