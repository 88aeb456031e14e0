"""The demonstration's training and its cache, with a training short enough for a test."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bitfront.core import Labelled
from bitfront.experiments import digits
from bitfront.experiments.digits import DigitsWorkload, Training, load_halves, train, trained_network, user_cache

TINY = Training(epochs=1, batch_size=32)


@pytest.fixture(scope="module")
def few() -> Labelled:
    """64 images of the training half."""
    return load_halves()[0].part(0, 64)


@pytest.fixture(scope="module")
def state(few: Labelled) -> dict[str, Tensor]:
    """The weights one tiny training gives."""
    return train(TINY, few)


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_halves_share_no_image() -> None:
    """Every image is in exactly one half, and both halves hold all ten digits."""
    first, second = load_halves()
    assert (len(first), len(second)) == (898, 899)
    for half in (first, second):
        images = half.inputs["images"]
        assert images.shape[1:] == (1, 8, 8)
        assert images.dtype == np.float32
        assert (float(images.min()), float(images.max())) == (0.0, 1.0)
        assert set(half.labels.tolist()) == set(range(10))
    seen = {image.tobytes() for half in (first, second) for image in half.inputs["images"]}
    assert len(seen) == 1797


def test_training_is_deterministic(few: Labelled, state: dict[str, Tensor]) -> None:
    """The same settings give the same weights bit for bit; another seed gives others."""
    assert _same(train(TINY, few), state)
    assert not _same(train(Training(epochs=1, batch_size=32, seed=1), few), state)


def test_training_leaves_torch_as_it_was(few: Labelled) -> None:
    """Neither the global random state nor the thread count changes."""
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    train(TINY, few)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_a_second_network_comes_from_the_cache(
    few: Labelled, state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call trains and keeps; the second only reads, and gives the same network, ready to score."""
    first = trained_network(TINY, few, tmp_path)
    assert _same(first.state_dict(), state)
    monkeypatch.setattr(digits, "train", _no_training)
    second = trained_network(TINY, few, tmp_path)
    assert _same(second.state_dict(), state)
    assert not second.training


def test_other_settings_or_data_miss_the_cache(
    few: Labelled, state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key holds the settings and the data: a change of either trains again."""
    monkeypatch.setattr(digits, "train", lambda *_: copy.deepcopy(state))
    trained_network(TINY, few, tmp_path)
    monkeypatch.setattr(digits, "train", _no_training)
    with pytest.raises(AssertionError, match="trained"):
        trained_network(Training(epochs=1, batch_size=32, seed=1), few, tmp_path)
    with pytest.raises(AssertionError, match="trained"):
        trained_network(TINY, few.part(0, 63), tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_cache_is_trained_over(
    few: Labelled, state: dict[str, Tensor], tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file cut short, with one changed byte, empty or of another kind is trained over, then read again."""
    monkeypatch.setattr(digits, "train", lambda *_: copy.deepcopy(state))
    trained_network(TINY, few, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    flipped = whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]
    path.write_bytes(
        {"truncated": whole[: len(whole) // 2], "flipped": flipped, "empty": b"", "foreign": b"x" * 99}[damage]
    )
    calls: list[Training] = []

    def trained(training: Training, _: Labelled) -> dict[str, Tensor]:
        calls.append(training)
        return copy.deepcopy(state)

    monkeypatch.setattr(digits, "train", trained)
    assert _same(trained_network(TINY, few, tmp_path).state_dict(), state)
    assert calls == [TINY]
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_does_no_harm(
    few: Labelled, state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the cache folder is a file, the network is trained and handed out all the same."""
    monkeypatch.setattr(digits, "train", lambda *_: copy.deepcopy(state))
    (tmp_path / "file").write_text("")
    network = trained_network(TINY, few, tmp_path / "file")
    assert _same(network.state_dict(), state)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``XDG_CACHE_HOME`` goes before ``~/.cache``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "bitfront"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "bitfront"


@pytest.mark.slow
def test_the_demonstration_is_accurate(tmp_path: Path) -> None:
    """Trained as the demonstration trains it, the network gets at least 96 % of the unseen half."""
    workload = DigitsWorkload(cache=tmp_path)
    evaluation, network = workload.evaluation, workload.model
    with torch.inference_mode():
        scores = network(torch.from_numpy(evaluation.inputs["images"])).numpy()
    assert np.asarray(workload.metric((scores,), evaluation.labels), np.float64).mean() >= 0.96


def _no_training(*_: object) -> dict[str, Tensor]:
    raise AssertionError("trained although the cache holds the network")
