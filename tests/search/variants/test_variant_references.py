"""Networks that passes make are read like the given one: their samples lie where its do, told and measured axes too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bitfront.backends.ort.cpu import OrtCpuBackend
from bitfront.core import ContentStore
from bitfront.lowering.reference import ReferenceModel, with_batch_axes
from bitfront.search.measuring.measurement_cache import MeasurementCache
from bitfront.search.measuring.runner import ModelRunner
from bitfront.search.measuring.stopwatch import Stopwatch
from bitfront.search.passes.prune import PrunePass
from bitfront.search.passes.student import StudentPass
from bitfront.search.variants.variant_files import load_variant_file, save_variant
from tests.search.variants import making


def _told() -> ReferenceModel:
    """A person says that the output has no row a sample."""
    reference = making.given()
    return with_batch_axes(reference, dict.fromkeys(reference.output_names))


def _measured() -> ReferenceModel:
    """Runs showed that each is one sample."""
    reference = making.given()
    return replace(reference, batching=replace(reference.batching, fixed=1, certain=frozenset(reference.output_names)))


@pytest.mark.parametrize("read", [_told, _measured])
@pytest.mark.parametrize("student", [False, True], ids=["pruned", "student"])
def test_samples_lie_where_they_did(read: Callable[[], ReferenceModel], student: bool, tmp_path: Path) -> None:
    """As exported, and as read from the run folder."""
    given = read()
    step = StudentPass().step("Tiny-1") if student else PrunePass().step({"conv1": 0.5})
    variant = making.pipeline(reference=given).make([step])
    found = variant.lowerer.reference
    (own,), (name,) = found.output_names, given.output_names
    assert found.batching.inputs == given.batching.inputs
    assert found.batching.fixed == given.batching.fixed
    assert found.batching.outputs == {own: given.batching.outputs[name]}
    assert found.batching.certain == {own}
    assert variant.recipe is not None
    path = tmp_path / save_variant(tmp_path, variant)
    loaded = load_variant_file(path, variant.recipe, given)
    assert replace(loaded, source=found.source) == found


def test_configs_name_the_steps_of_the_given_network() -> None:
    """It is what a config of a variant names, and what has to be read again in the same way."""
    given = replace(making.given(), applied_steps=("attention",), skipped_steps=("slices",), fixed_inputs={"rate": 8.0})
    made = making.pipeline(reference=given)
    variant = made.make([PrunePass().step({"conv1": 0.5})])
    runner = ModelRunner(
        lowerer=made.make(()).lowerer,
        backend=OrtCpuBackend(),
        inputs={},
        threads=1,
        batch_size=1,
        cores=1,
        measurements=MeasurementCache(ContentStore(None), lowering="l", timing="t", scoring="s"),
        watch=Stopwatch(),
        variants={"pruned": variant},
    )
    schemes = making.schemes_of(variant.lowerer, "fp32")
    config = runner.config(schemes, "pruned")
    assert (config.model, config.recipe) == (given.fingerprint, variant.recipe)
    assert (config.applied_steps, config.skipped_steps) == (given.applied_steps, given.skipped_steps)
    assert config.fixed_inputs == given.fixed_inputs
