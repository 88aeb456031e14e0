"""Scoring with an in-memory writer and backend whose divergences are known in closed form."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bitfront.backends.base import Capabilities, DeviceFingerprint
from bitfront.backends.host import HostBackend, HostModel
from bitfront.core import (
    FP32,
    Array,
    Artifact,
    BackendError,
    BackendUnavailableError,
    ContentStore,
    DataError,
    Inputs,
    LoweringError,
    Precision,
    Scheme,
)
from bitfront.lowering.layers import Layer, PrecisionGroup, QuantisableLayers
from bitfront.sensitivity.divergence import kl_divergence
from bitfront.sensitivity.divergence_metric import OutputReading
from bitfront.sensitivity.score import planned_steps, score_sensitivities
from bitfront.sensitivity.table import SensitivityRow, SensitivityTable

SCHEMES = tuple(
    Scheme.parse(text)
    for text in ("fp32", "fp16", "int8:nearest", "int8:mse", "int4:mse", "int4:gptq", "int4:gptq:weight-only")
)
DAMAGE = {
    "fp32": 0.0,
    "fp16": 0.0,
    "int8:nearest": 0.2,
    "int8:mse": 0.1,
    "int4:mse": 0.8,
    "int4:gptq": 0.5,
    "int4:gptq:weight-only": 0.4,
}
WEIGHT = {"a": 1.0, "b": 3.0, "c": 0.0}  # how much each layer's damage counts


def _layer(name: str) -> Layer:
    return Layer(
        name=name,
        node=name,
        op="Gemm",
        weight=f"{name}.weight",
        weight_shape=(4, 4),
        channel_axis=0,
        conv_groups=1,
        parameters=16,
        schemes=SCHEMES,
        refused={},
    )


INVENTORY = QuantisableLayers(
    layers=tuple(_layer(name) for name in "abc"),
    groups=(
        PrecisionGroup(name="a", layers=("a",), reason="", schemes=SCHEMES),
        PrecisionGroup(name="b+1", layers=("b", "c"), reason="shared input", schemes=SCHEMES),
    ),
    edges=((0, 1),),
    left_alone={},
)
Rule = Callable[[Mapping[str, str]], None]


class Writer:
    """Writes a candidate as JSON: layer → scheme text; FP16 is written as FP32 is."""

    def __init__(self, refuse: Rule | None = None) -> None:
        self._refuse = refuse
        self.written = 0

    @property
    def quantisable(self) -> QuantisableLayers:
        return INVENTORY

    def lower(self, schemes: Mapping[str, Scheme]) -> Artifact:
        assert list(schemes) == ["a", "b", "c"]
        texts = {layer: scheme.text.replace("fp16", "fp32") for layer, scheme in schemes.items()}
        if self._refuse:
            self._refuse(texts)
        self.written += 1
        return Artifact.onnx(json.dumps(texts).encode())


def _damage(texts: Mapping[str, str]) -> float:
    return sum(WEIGHT[layer] * DAMAGE[text] for layer, text in texts.items())


class Model(HostModel):
    """Logits are x with the first raised by the layers' damage."""

    def __init__(self, texts: dict[str, str], batch: int | None) -> None:
        self._texts = texts
        self._batch = batch

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return {"x": (self._batch, 3)}

    @property
    def output_names(self) -> tuple[str, ...]:
        return ("logits",)

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        logits = np.array(inputs["x"], dtype=np.float32)
        assert self._batch in (None, len(logits))
        logits[:, 0] += _damage(self._texts)
        return (logits,)

    def operators(self) -> tuple[str, ...]:
        return ("Gemm",) * 3


class Runtime(HostBackend):
    """Compiles the writer's JSON; counts what it compiled."""

    def __init__(self, refuse: Rule | None = None, batch: int | None = None, device: str = "test") -> None:
        self.compiled: list[dict[str, str]] = []
        self._refuse = refuse
        self._batch = batch
        self._device = device

    @property
    def name(self) -> str:
        return "memory"

    @property
    def dialect(self) -> str:
        return "memory"

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> Model:
        del batch_size
        assert threads == 1
        texts = json.loads(artifact.data)
        if self._refuse:
            self._refuse(texts)
        self.compiled.append(texts)
        return Model(texts, self._batch)

    def fingerprint(self) -> DeviceFingerprint:
        return DeviceFingerprint(
            device=self._device, cores=1, instructions=(), system="test", runtime="memory 1", python="3"
        )

    def capabilities(self) -> Capabilities:
        return Capabilities(supported={}, notes={})


INPUTS = {"x": np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)}


def _score(
    writer: Writer | None = None,
    runtime: Runtime | None = None,
    store: ContentStore | None = None,
    inputs: Inputs = INPUTS,
    precisions: tuple[Precision, ...] = tuple(Precision),
    on_step: Callable[[str], None] = lambda _: None,
    read: Sequence[OutputReading] = (OutputReading(kind="classes"),),
) -> SensitivityTable:
    return score_sensitivities(
        writer or Writer(),
        runtime or Runtime(),
        inputs,
        samples=30,
        read=read,
        precisions=precisions,
        threads=1,
        store=store or ContentStore(None),
        on_step=on_step,
    )


def _each_kl(damage: float) -> NDArray[np.float64]:
    """KL of raising the first logit, for each sample that is scored."""
    reference = np.asarray(INPUTS["x"][:30], dtype=np.float64)
    return kl_divergence(reference, reference + np.array([damage, 0, 0]))


def _kl(damage: float) -> float:
    return float(_each_kl(damage).mean())


def _rows(table: SensitivityTable) -> dict[tuple[str, str], SensitivityRow]:
    return {(row.group, row.scheme.text): row for row in table.rows}


def _refuse(layer: str, text: str, error: Exception) -> Rule:
    def rule(texts: Mapping[str, str]) -> None:
        if texts[layer] == text:
            raise error

    return rule


def test_scores_are_those_of_the_artifacts() -> None:
    """Alone and restored are the divergences of exactly the networks they are defined on."""
    rows = _rows(_score())
    for group, weight, rest in (("a", 1.0, 3.0), ("b+1", 3.0, 1.0)):
        base = _each_kl(rest * DAMAGE["int4:gptq"])
        for text in DAMAGE:
            assert rows[group, text].single_layer == pytest.approx(_kl(weight * DAMAGE[text]), rel=1e-4, abs=1e-9)
        for text in ("fp32", "fp16", "int8:mse", "int4:gptq", "int4:gptq:weight-only"):
            parts = _each_kl(weight * DAMAGE[text] + rest * DAMAGE["int4:gptq"]) - base
            row = rows[group, text]
            assert row.leave_one_out == pytest.approx(parts.mean(), rel=1e-4, abs=1e-9)
            assert row.leave_one_out_error == pytest.approx(parts.std(ddof=1) / np.sqrt(30), rel=1e-4, abs=1e-9)
        for text in ("int8:nearest", "int4:mse"):  # not the best rounding of their rank
            assert math.isnan(rows[group, text].leave_one_out)


def test_the_table_is_whole_and_in_order() -> None:
    """Every group and scheme has a row, FP32 first, in the network's order; losses are filled in."""
    table = _score()
    assert [(row.group, row.scheme) for row in table.rows] == [(g.name, c) for g in INVENTORY.groups for c in SCHEMES]
    assert (table.divergence_metric, table.samples) == ("kl:1", 30)
    assert all(math.isfinite(row.loss) and not row.dropped for row in table.rows)
    assert table.losses()["a"][FP32] == 0


def test_only_allowed_precisions_are_scored() -> None:
    """Other precisions have no row, FP32 always has."""
    table = _score(precisions=(Precision.INT8,))
    assert [row.scheme.text for row in table.rows if row.group == "a"] == ["fp32", "int8:nearest", "int8:mse"]
    rows = _rows(table)
    assert rows["a", "int8:mse"].leave_one_out == pytest.approx(_kl(0.4) - _kl(0.3), rel=1e-4)


def test_steps_are_told_as_planned() -> None:
    """As many steps are reported as ``planned_steps`` says, refusals included."""
    steps: list[str] = []
    _score(runtime=Runtime(_refuse("a", "int8:mse", BackendError("no kernel"))), on_step=steps.append)
    assert len(steps) == planned_steps(INVENTORY, tuple(Precision)) == 14
    assert "a int8:mse" in steps


def test_identical_artifacts_run_once() -> None:
    """FP16 writes the same bytes as FP32 here: neither is run again, and no network twice."""
    runtime = Runtime()
    _score(runtime=runtime)
    assert len(runtime.compiled) == len({json.dumps(texts) for texts in runtime.compiled})


def test_a_finished_scoring_is_not_repeated(tmp_path: Path) -> None:
    """With the same store nothing runs again; other inputs or another device do."""
    store = ContentStore(tmp_path)
    first = _score(store=store)
    again = Runtime()
    assert repr(_score(runtime=again, store=store)) == repr(first)
    assert again.compiled == []
    other_device, other_inputs = Runtime(device="other"), Runtime()
    _score(runtime=other_device, store=store)
    _score(runtime=other_inputs, store=store, inputs={"x": INPUTS["x"][::-1]})
    assert len(other_device.compiled) == len(other_inputs.compiled) > 10


def test_a_killed_scoring_goes_on_where_it_was() -> None:
    """What was scored before the kill is not run again, but for FP32."""
    store = ContentStore(None)

    def kill(note: str) -> None:
        if note.startswith("b+1 int8:mse"):
            raise KeyboardInterrupt

    before, after, whole = Runtime(), Runtime(), Runtime()
    with pytest.raises(KeyboardInterrupt):
        _score(runtime=before, store=store, on_step=kill)
    assert repr(_score(runtime=after, store=store)) == repr(_score(runtime=whole))
    assert len(before.compiled) + len(after.compiled) == len(whole.compiled) + 1


@pytest.mark.parametrize("batch", [1, 7])
def test_fixed_batches_score_the_same(batch: int) -> None:
    """A fixed batch is respected and its filling does not count."""
    fixed, dynamic = _score(runtime=Runtime(batch=batch)), _score()
    for found, expected in zip(fixed.rows, dynamic.rows, strict=True):
        assert found.loss == pytest.approx(expected.loss, rel=1e-6)


@pytest.mark.parametrize("where", ["lowerer", "backend"])
def test_refused_schemes_are_dropped_with_the_reason(where: str) -> None:
    """A scheme that cannot be written or compiled loses its row's score, and the rest stays."""
    if where == "lowerer":
        table = _score(writer=Writer(_refuse("b", "int4:gptq", LoweringError("layer 'b': not at 4 bit"))))
    else:
        table = _score(runtime=Runtime(_refuse("b", "int4:gptq", BackendError("layer 'b': not at 4 bit"))))
    rows = _rows(table)
    assert rows["b+1", "int4:gptq"].dropped == "layer 'b': not at 4 bit"
    assert math.isnan(rows["b+1", "int4:gptq"].single_layer)
    assert [row for row in table.rows if row.dropped] == [rows["b+1", "int4:gptq"]]
    # The all-low network takes the next best rounding of that group.
    assert rows["a", "int4:gptq"].leave_one_out == pytest.approx(_kl(0.5 + 3 * 0.8) - _kl(3 * 0.8), rel=1e-4)


def test_an_all_low_network_that_fails_leaves_the_alone_scores() -> None:
    """Where only the all-low context is refused, no scheme is dropped and the loss is the alone score."""

    def rule(texts: Mapping[str, str]) -> None:
        if "fp32" not in (texts["a"], texts["b"]):
            raise BackendError("out of memory")

    rows = _rows(_score(runtime=Runtime(rule)))
    assert rows["a", "int4:gptq"].dropped == ""
    assert math.isnan(rows["a", "int4:gptq"].leave_one_out)
    assert rows["a", "int4:gptq"].loss == rows["a", "int4:gptq"].single_layer > 0


def test_outputs_that_are_not_finite_drop_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN alone drops a scheme; it is not chosen for the all-low network."""
    monkeypatch.setitem(DAMAGE, "int4:gptq", math.nan)
    rows = _rows(_score())
    assert "not finite" in rows["a", "int4:gptq"].dropped
    assert rows["a", "int4:mse"].leave_one_out == pytest.approx(_kl(0.8 + 2.4) - _kl(2.4), rel=1e-4)


def test_an_fp32_network_that_fails_is_an_error() -> None:
    """What FP32 itself cannot do is no property of a scheme; nor is a runtime that has gone."""
    with pytest.raises(BackendError, match="no FP32"):
        _score(runtime=Runtime(_refuse("a", "fp32", BackendError("no FP32"))))
    with pytest.raises(LoweringError, match="no FP32"):
        _score(writer=Writer(_refuse("a", "fp32", LoweringError("no FP32"))))
    store = ContentStore(None)
    _score(store=store, precisions=(Precision.INT8,))
    with pytest.raises(BackendError, match="no FP32"):  # the measure is known, new scores still need FP32
        _score(store=store, runtime=Runtime(_refuse("b", "fp32", BackendError("no FP32"))))
    with pytest.raises(BackendUnavailableError, match="gone"):
        _score(runtime=Runtime(_refuse("a", "int8:mse", BackendUnavailableError("gone"))))
    with pytest.raises(DataError, match="at least one sample"):
        _score(inputs={"x": INPUTS["x"][:0]})
