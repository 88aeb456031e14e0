"""Networks by key: what a candidate names, and another process makes again."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfront.core import ContentStore
from bitfront.search.measuring.stopwatch import Stopwatch
from bitfront.search.variants.made import MadeNetworks
from tests.search.variants.making import maker


def made(folder: Path) -> MadeNetworks:
    return MadeNetworks(maker(folder), ContentStore(folder), Stopwatch())


def test_a_key_is_known_to_another_process(tmp_path: Path) -> None:
    """Steps are read back from the run's cache, and give the network of that key."""
    steps = [maker().prune_step({"conv1": 0.5}), maker().distil_step(4)]
    first = made(tmp_path)
    key = first.add(steps)
    assert key == first.key_of(steps) == first.add(steps)
    assert list(first) == [key]
    second = made(tmp_path)
    assert not second
    assert second.steps(key) == tuple(steps)
    assert second[key].recipe == first[key].recipe
    assert list(second) == [key]


def test_an_unknown_key(tmp_path: Path) -> None:
    networks = made(tmp_path)
    with pytest.raises(KeyError, match="0123"):
        networks.steps("0123")
    with pytest.raises(KeyError, match="0123"):
        networks["0123"]
