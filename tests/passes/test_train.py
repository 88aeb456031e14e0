"""The training loop: it learns, repeats itself to the bit, resumes in the middle and stops when told."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfront.core import ConfigError, ContentStore, DataError, ModelError
from bitfront.passes.checkpoint import StoredCheckpoint, pack, unpack
from bitfront.passes.data import Augmentation, Batch, TrainingData, rows_of_step
from bitfront.passes.options import options_from_json, options_to_json
from bitfront.passes.train import Ended, ParameterGroup, Progress, Supervision, train
from bitfront.passes.training import Optimiser, Schedule, Training
from tests.passes.nets import image_data, plain, same_weights

OPTIONS = Training(steps=12, batch_size=16, learning_rate=0.05, augment=Augmentation(mirror=0.5, shift=2))


def cross_entropy(module: nn.Module, batch: Batch) -> Tensor:
    assert batch.labels is not None
    return functional.cross_entropy(module(*batch.inputs.values()), batch.labels)


class KilledError(Exception):
    """Stands for a process that ends."""


def test_training_lowers_the_loss_and_restores_the_mode() -> None:
    """The loss falls; a module in evaluation mode comes back in it."""
    module, data = plain(), image_data()
    result = train(module, cross_entropy, data, replace(OPTIONS, steps=60), supervision=Supervision(every=20))
    assert [report.step for report in result.reports] == [20, 40, 60]
    assert result.ended is Ended.FINISHED
    assert result.reports[-1].loss < 0.5 * result.reports[0].loss
    assert not any(part.training for part in module.modules())


@pytest.mark.parametrize("optimiser", list(Optimiser))
def test_training_repeats_itself(optimiser: Optimiser) -> None:
    """Two trainings from one module agree to the last bit, dropout included, and leave torch's random state alone."""
    first, second, data = plain(dropout=0.5), plain(dropout=0.5), image_data()
    options = replace(OPTIONS, optimiser=optimiser, learning_rate=0.003)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    train(first, cross_entropy, data, options)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    train(second, cross_entropy, data, options)
    assert same_weights(first, second)
    assert not same_weights(first, plain(dropout=0.5))


@pytest.mark.parametrize("optimiser", list(Optimiser))
def test_a_killed_training_resumes_to_the_same_weights(tmp_path: Path, optimiser: Optimiser) -> None:
    """Interrupted after 7 of 12 steps (saved at 5) and resumed equals uninterrupted, to the last bit."""
    data, options = image_data(), replace(OPTIONS, optimiser=optimiser, learning_rate=0.003)
    whole, killed, resumed = (plain(dropout=0.5) for _ in range(3))
    train(whole, cross_entropy, data, options, supervision=Supervision(every=5))
    calls = 0

    def dies(module: nn.Module, batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KilledError
        return cross_entropy(module, batch)

    supervision = Supervision(every=5, checkpoint=StoredCheckpoint(ContentStore(tmp_path), "one"))
    with pytest.raises(KilledError, match=r"^$"):
        train(killed, dies, data, options, supervision=supervision)
    assert not same_weights(killed, whole)
    result = train(resumed, cross_entropy, data, options, supervision=supervision)
    assert same_weights(resumed, whole)
    assert [report.step for report in result.reports] == [5, 10, 12]


@pytest.mark.parametrize("dropped", ["optimiser", "random", "step"])
def test_a_state_that_forgets_something_is_noticed(tmp_path: Path, dropped: str) -> None:
    """Planted bugs: a resumed training without its momentum, random state or step differs."""
    data, checkpoint = image_data(), StoredCheckpoint(ContentStore(tmp_path), "one")
    whole, fresh = plain(dropout=0.5), plain(dropout=0.5)
    train(whole, cross_entropy, data, OPTIONS)
    stop = Supervision(every=5, checkpoint=checkpoint, watch=lambda _, progress: progress.step == 5)
    train(plain(dropout=0.5), cross_entropy, data, OPTIONS, supervision=stop)
    state = unpack(checkpoint.load() or b"")
    assert state is not None
    if dropped == "optimiser":
        state["optimiser"]["state"] = {}
    elif dropped == "random":
        state["random"] = torch.Generator().manual_seed(9).get_state()
    else:
        state["step"] = 4
    checkpoint.save(pack(state))
    train(fresh, cross_entropy, data, OPTIONS, supervision=Supervision(every=5, checkpoint=checkpoint))
    assert not same_weights(fresh, whole)


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_a_finished_training_is_not_repeated(tmp_path: Path, kind: str) -> None:
    """With its state at hand nothing is trained again; with other options it is."""
    checkpoint = StoredCheckpoint(ContentStore(tmp_path if kind == "folder" else None), "key")
    data, supervision = image_data(), Supervision(checkpoint=checkpoint)
    first, second = plain(), plain()
    train(first, cross_entropy, data, OPTIONS, supervision=supervision)

    def never(module: nn.Module, batch: Batch) -> Tensor:
        raise KilledError(f"{module} was trained on {len(batch)} samples")

    again = train(second, never, data, OPTIONS, supervision=supervision)
    assert same_weights(first, second)
    assert (again.ended, again.steps) == (Ended.FINISHED, 12)
    with pytest.raises(KilledError, match="was trained on 16 samples"):
        train(plain(), never, data, replace(OPTIONS, seed=1), supervision=supervision)


def test_a_damaged_state_counts_as_none(tmp_path: Path) -> None:
    """Half a file is no reason to fail: the training starts over."""
    data, checkpoint = image_data(), StoredCheckpoint(ContentStore(tmp_path), "one")
    supervision = Supervision(checkpoint=checkpoint)
    first, second = plain(), plain()
    train(first, cross_entropy, data, OPTIONS, supervision=supervision)
    checkpoint.save((checkpoint.load() or b"")[:500])
    train(second, cross_entropy, data, OPTIONS, supervision=supervision)
    assert same_weights(first, second)


def test_who_watches_may_stop_and_let_it_go_on() -> None:
    """A stopped training keeps its state; promoted, it ends where an uninterrupted one does."""
    data, checkpoint = image_data(), StoredCheckpoint(ContentStore(None), "key")
    whole, halved = plain(), plain()
    train(whole, cross_entropy, data, OPTIONS)
    seen: list[tuple[int, bool]] = []

    def watch(module: nn.Module, progress: Progress) -> bool:
        seen.append((progress.step, module.training))
        return progress.step == 8

    supervision = Supervision(every=4, checkpoint=checkpoint, watch=watch)
    assert train(halved, cross_entropy, data, OPTIONS, supervision=supervision).ended is Ended.STOPPED
    assert train(halved, cross_entropy, data, OPTIONS, supervision=supervision).ended is Ended.FINISHED
    assert seen == [(4, False), (8, False), (12, False)]
    assert same_weights(whole, halved)


def test_a_training_ends_with_its_budget() -> None:
    """The first step that ends past the budget is the last one; time before an interruption counts."""
    checkpoint, ticks = StoredCheckpoint(ContentStore(None), "key"), iter(range(1000))

    def supervision(budget_s: float) -> Supervision:
        return Supervision(every=100, checkpoint=checkpoint, budget_s=budget_s, clock=lambda: next(ticks))

    module, data = plain(), image_data()
    first = train(module, cross_entropy, data, OPTIONS, supervision=supervision(6))
    assert first.ended is Ended.OUT_OF_TIME
    assert 0 < first.steps < 12
    second = train(module, cross_entropy, data, OPTIONS, supervision=supervision(6))
    assert (second.ended, second.steps) == (Ended.OUT_OF_TIME, first.steps + 1)


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    """From that fraction of the steps on statistics stand still while weights go on."""
    data = image_data()
    for fraction, moved in ((0.0, False), (1.0, True)):
        module = plain()
        before = copy.deepcopy(module.state_dict())
        train(module, cross_entropy, data, replace(OPTIONS, freeze_batch_norm_after=fraction))
        after = module.state_dict()
        assert (not torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])) is moved
        assert not torch.equal(before["bn1.weight"], after["bn1.weight"])


def test_groups_scale_the_rate() -> None:
    """A factor of zero keeps parameters where they are; adapters are trained along."""
    module, data, adapter = plain(), image_data(), nn.Linear(5, 5)
    before, adapter_before = copy.deepcopy(module.state_dict()), adapter.weight.detach().clone()

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        assert batch.labels is not None
        return functional.cross_entropy(adapter(module(*batch.inputs.values())), batch.labels)

    def grouping(name: str, parameter: nn.Parameter) -> ParameterGroup:
        del parameter
        return ParameterGroup(learning_rate=0.0 if name.startswith("conv1.") else 1.0)

    train(module, loss, data, OPTIONS, adapters=adapter, grouping=grouping)
    assert torch.equal(module.conv1.weight, before["conv1.weight"])
    assert not torch.equal(module.conv2.weight, before["conv2.weight"])
    assert not torch.equal(adapter.weight, adapter_before)


def test_schedules_rise_and_fall() -> None:
    """Warm-up is linear, a cosine halves in the middle and ends near zero, a constant stays."""
    options = Training(steps=100, learning_rate=1.0, warmup=0.1)
    assert options.learning_rate_at(0) == pytest.approx(0.1)
    assert options.learning_rate_at(9) == options.learning_rate_at(10) == 1.0
    assert options.learning_rate_at(55) == pytest.approx(0.5)
    assert options.learning_rate_at(99) < 0.001
    assert replace(options, schedule=Schedule.CONSTANT).learning_rate_at(99) == 1.0


def test_every_epoch_is_a_permutation() -> None:
    """Rows of an epoch are all different; another seed and another epoch have another order."""
    epochs = [np.concatenate([rows_of_step(64, 16, 4 * e + s, 3) for s in range(4)]) for e in range(2)]
    assert all(sorted(epoch) == list(range(64)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0][:16], rows_of_step(64, 16, 0, 4))
    assert len(rows_of_step(5, 16, 7, 0)) == 5


def test_augmentation_shifts_and_mirrors_whole_images() -> None:
    """Each augmented image is one of the shifted, possibly mirrored versions of its original."""
    images = np.arange(1, 2 * 2 * 3 * 4 + 1, dtype=np.float32).reshape(2, 2, 3, 4)
    batch = Batch(inputs={"images": torch.from_numpy(images)})
    out = Augmentation(mirror=0.5, shift=1).apply(batch, np.random.default_rng(0)).inputs["images"]
    assert out.shape == (2, 2, 3, 4)
    for image, augmented in zip(images, out.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
        windows = [padded[:, y : y + 3, x : x + 4] for y in range(3) for x in range(3)]
        versions = windows + [window[:, :, ::-1] for window in windows]
        assert any(np.array_equal(augmented, version) for version in versions)
    same = Augmentation().apply(batch, np.random.default_rng(0))
    assert same is batch


def test_options_survive_json() -> None:
    """What is written reads back equal; what is wrong is named."""
    options = replace(OPTIONS, optimiser=Optimiser.ADAM, gradient_norm=1.0)
    assert options_from_json(Training, options_to_json(options), "training") == options
    assert options_from_json(Training, {"steps": 3}, "training") == Training(steps=3)
    for data, message in (
        ({"steps": 3, "rate": 1}, "training: expected an object with steps, batch_size"),
        ({}, "training: steps missing"),
        ({"steps": 3.5}, "training, steps: expected int, got 3.5"),
        ({"steps": 3, "optimiser": "lion"}, "training, optimiser: expected one of sgd, adam, got 'lion'"),
        ({"steps": 3, "augment": {"mirror": "yes"}}, "training, augment, mirror: expected float, got 'yes'"),
        ({"steps": -1}, "training: expected steps ≥ 0, got -1"),
    ):
        with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
            options_from_json(Training, data, "training")


def test_bad_material_is_refused() -> None:
    """Arrays of different lengths, a frozen module and a loss that is no number have their own messages."""
    with pytest.raises(DataError, match="expected inputs of one length"):
        TrainingData(inputs={"x": np.zeros((3, 1))}, labels=np.zeros(2))
    with pytest.raises(ModelError, match="no parameter of the module requires a gradient"):
        train(plain().requires_grad_(False), cross_entropy, image_data(), OPTIONS)
    with pytest.raises(ModelError, match="the loss is nan at step 12 of 12"):
        train(plain(), lambda m, b: cross_entropy(m, b) * float("nan"), image_data(), OPTIONS)


@pytest.mark.parametrize("optimiser", list(Optimiser))
def test_weights_decay_and_biases_do_not(optimiser: Optimiser) -> None:
    """Where the loss asks for nothing, decay alone moves: what has two axes or more."""
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1.0)

    def nothing(part: nn.Module, batch: Batch) -> Tensor:
        loss: Tensor = 0 * part(*batch.inputs.values()).sum()
        return loss

    data = TrainingData(inputs={"x": np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)})
    options = Training(steps=3, batch_size=4, learning_rate=0.1, weight_decay=0.5, optimiser=optimiser)
    train(module, nothing, data, options)
    for name, parameter in module.named_parameters():
        assert bool((parameter == 1).all()) == (parameter.dim() < 2), name
