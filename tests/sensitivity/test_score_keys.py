"""A sensitivity score comes from the cache only for the same network, inputs, runtime and machine."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest

from bitfront.core import Artifact, ContentStore, Inputs, Scheme
from bitfront.sensitivity.divergence_metric import NSR, OutputReading
from tests.sensitivity import sparsity_nets, test_score
from tests.sensitivity.test_score import Runtime, Writer


class Renamed(Runtime):
    """Another runtime on the same machine."""

    @property
    def name(self) -> str:
        return "another"


class Other(Writer):
    """Writes another network: its artifacts differ in a word that the runtime does not look at."""

    def lower(self, schemes: Mapping[str, Scheme]) -> Artifact:
        return Artifact.onnx(super().lower(schemes).data.replace(b"{", b'{"other": "fp32", ', 1))


def scores_taken(writer: Writer, runtime: Runtime, store: ContentStore, inputs: Inputs) -> int:
    """How many artifacts a scoring compiled."""
    test_score._score(writer, runtime, store, inputs)
    return len(runtime.compiled)


INPUTS: Inputs = test_score.INPUTS
MOVED: Inputs = {"x": np.asarray(INPUTS["x"], np.float32) + np.float32(0.5)}


def test_the_same_is_taken_from_the_cache() -> None:
    """Otherwise the tests below would say nothing."""
    store = ContentStore(None)
    assert scores_taken(Writer(), Runtime(), store, INPUTS) > 5
    assert scores_taken(Writer(), Runtime(), store, INPUTS) == 0


@pytest.mark.parametrize(
    ("runtime", "inputs"),
    [
        pytest.param(Runtime, MOVED, id="inputs"),
        pytest.param(Renamed, INPUTS, id="runtime"),
        pytest.param(lambda: Runtime(device="another"), INPUTS, id="machine"),
    ],
)
def test_what_differs_is_scored_anew(runtime: type[Runtime], inputs: Inputs) -> None:
    """As often as in an empty store."""
    store = ContentStore(None)
    scores_taken(Writer(), Runtime(), store, INPUTS)
    assert scores_taken(Writer(), runtime(), store, inputs) == scores_taken(
        Writer(), runtime(), ContentStore(None), inputs
    )


def test_outputs_that_are_read_otherwise_are_measured_anew() -> None:
    """Scores of classes in nats say nothing of the same output read as values."""
    store = ContentStore(None)
    assert test_score._score(store=store).divergence_metric == "kl:1"
    values = (OutputReading(kind="values"),)
    shared, alone = test_score._score(store=store, read=values), test_score._score(read=values)
    assert shared.divergence_metric == alone.divergence_metric == "nsr"
    assert shared.rows == alone.rows


def test_scores_against_another_fp32_network_are_not_taken() -> None:
    """An artifact that both networks share has another score for each: it is compared with that network's FP32."""

    class Offset(Writer):
        """Its FP32 artifact is the other network's INT8 one."""

        def lower(self, schemes: Mapping[str, Scheme]) -> Artifact:
            texts = json.loads(super().lower(schemes).data)
            texts["a"] = "int8:mse" if texts["a"] == "fp32" else texts["a"]
            return Artifact.onnx(json.dumps(texts).encode())

    store = ContentStore(None)
    test_score._score(Writer(), Runtime(), store)
    shared = test_score._rows(test_score._score(Offset(), Runtime(), store))
    alone = test_score._rows(test_score._score(Offset(), Runtime(), ContentStore(None)))
    assert {key: row.single_layer for key, row in shared.items()} == {
        key: row.single_layer for key, row in alone.items()
    }


def test_sparsities_are_scored_anew_for_another_key_metric_or_importance() -> None:
    """Each alone; the very same is taken as it was."""
    net = sparsity_nets.classifier()
    for change in (
        {"key": "other"},
        {"divergence_metric": NSR},
        {"importance": "taylor"},
        {"inputs": sparsity_nets.rows_of(50, 9)},
    ):
        store = ContentStore(None)
        sparsity_nets.scored(net, store=store, levels=(0.5,))
        calls: list[str] = []
        spy = _Counting(store, calls)
        sparsity_nets.scored(net, store=spy, levels=(0.5,), **change)
        assert calls, change
        again: list[str] = []
        sparsity_nets.scored(net, store=_Counting(store, again), levels=(0.5,), **change)
        assert not again, change


class _Counting(ContentStore):
    """Another's entries; notes what is put."""

    def __init__(self, inner: ContentStore, puts: list[str]) -> None:
        super().__init__(None)
        self._memory = inner._memory
        self._puts = puts

    def put_json(self, kind: str, key: str, value: object) -> None:
        self._puts.append(key)
        super().put_json(kind, key, value)
