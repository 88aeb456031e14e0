"""Networks by key: what a candidate names, and another process makes again."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfront.core import ContentStore
from bitfront.search.measuring.stopwatch import Stopwatch
from bitfront.search.passes.prune import PrunePass
from bitfront.search.variants.builder import VariantStore
from tests.search.variants.making import distilled, pipeline


def stored(folder: Path) -> VariantStore:
    return VariantStore(pipeline(folder), ContentStore(folder), Stopwatch())


def test_a_key_is_known_to_another_process(tmp_path: Path) -> None:
    """Steps are read back from the run's cache, and give the network of that key."""
    steps = [PrunePass().step({"conv1": 0.5}), distilled(pipeline(), 4)]
    first = stored(tmp_path)
    key = first.add(steps)
    assert key == first.id_of(steps) == first.add(steps)
    assert list(first) == [key]
    second = stored(tmp_path)
    assert not second
    assert second.steps(key) == tuple(steps)
    assert second[key].recipe == first[key].recipe
    assert list(second) == [key]


def test_an_unknown_key(tmp_path: Path) -> None:
    networks = stored(tmp_path)
    with pytest.raises(KeyError, match="0123"):
        networks.steps("0123")
    with pytest.raises(KeyError, match="0123"):
        networks["0123"]
