"""What a report says of a network: which of the run's trials tell what training bought."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bitfront.core import ContentStore, Scheme
from bitfront.search.measuring.stopwatch import Stopwatch
from bitfront.search.passes.distill import DistillPass
from bitfront.search.passes.options import PassOptions
from bitfront.search.passes.prune import PrunePass
from bitfront.search.variants.builder import VariantBuilder, VariantStore
from bitfront.search.variants.info import variant_info
from tests.search.policy.test_improvement import trial
from tests.search.variants.making import distilled, pipeline

STEPS = 4


def test_accuracies_before_and_after_training(tmp_path: Path) -> None:
    """Both in FP32 and of the same pruning; trials at other precisions, or of the given network, say nothing of it."""
    store, made = ContentStore(tmp_path), pipeline(tmp_path)
    networks = VariantStore(made, store, Stopwatch())
    builder = VariantBuilder(options=PassOptions(passes=(PrunePass(), DistillPass())), pipeline=made, variants=networks)
    base = PrunePass().step({"conv1": 0.5})
    before = networks.add([base])
    after = networks.add([base, distilled(made, STEPS)])
    plain = trial(3, 0.88, 0.3, 300, after)
    rounded = replace(plain, candidate=replace(plain.candidate, schemes={"fc": Scheme.parse("int8")}))
    trials = [trial(0, 0.9, 1.0, 1000), trial(1, 0.5, 0.6, 500, before), rounded]
    info = variant_info(builder, after, trials)
    assert (info.untrained_accuracy, info.fp32_accuracy) == (0.5, None)
    info = variant_info(builder, after, [*trials, trial(4, 0.87, 0.6, 500, after)])
    assert (info.untrained_accuracy, info.fp32_accuracy) == (0.5, 0.87)
    assert [(step.name, step.steps) for step in info.steps] == [("prune", 0), ("distill", STEPS)]
    assert [(group.name, group.kept, group.channels) for group in info.pruned] == [("conv1", 8, 16)]
    assert 0 < info.macs_share < 1
    assert 0 < info.parameters_share < 1
