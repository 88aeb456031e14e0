"""Networks by key: what a candidate names, and another process makes again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitfront.core import ContentStore
from bitfront.search.measuring.stopwatch import Stopwatch
from bitfront.search.passes.prune import PrunePass
from bitfront.search.passes.sparse import SparsePass, SparsePattern
from bitfront.search.passes.student import StudentPass
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


def test_ids_are_those_that_run_folders_have() -> None:
    """Text by text: caches and studies of earlier versions, which spelt a pass ``distil``, go by these."""
    made = pipeline()
    prune, sparse, student = PrunePass().step({"conv1": 0.5}), SparsePass().step(SparsePattern("2:4")), StudentPass()
    found = {
        "pruned": [prune, distilled(made, 4)],
        "sparse": [sparse, distilled(made, 4)],
        "student": [student.step("Tiny-1"), distilled(made, 4, from_scratch=True)],
    }
    assert {name: VariantStore.id_of(steps) for name, steps in found.items()} == {
        "pruned": "b061da7723bd3189",
        "sparse": "9106a7884a103c84",
        "student": "d38bfeaf4c460952",
    }
    assert json.loads(prune.key)["pass"] == "prune"


def test_steps_of_a_pass_that_was_renamed_make_the_same_variant(tmp_path: Path) -> None:
    """A cache that says ``distil`` is followed with its training, which is not repeated."""
    steps = [PrunePass().step({"conv1": 0.5}), distilled(pipeline(), 4)]
    first = stored(tmp_path)
    key = first.add(steps)
    old = [
        step.to_json() | {"pass": step.name.removesuffix("l") if step.name == "distill" else step.name}
        for step in steps
    ]
    assert old[1]["pass"] == "distil"
    ContentStore(tmp_path).put_json("network", key, old)
    trainings = sorted(path.name for path in tmp_path.glob("train*"))
    second = stored(tmp_path)
    assert second[key].recipe == first[key].recipe
    assert sorted(path.name for path in tmp_path.glob("train*")) == trainings
