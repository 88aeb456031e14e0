"""What sparsity costs, against networks whose pruning is done by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfront.core import ConfigError, ContentStore, DataError, ModelError
from bitfront.passes.batch_norm import reestimate_batch_norm
from bitfront.passes.data import TrainingData
from bitfront.passes.prune import StructuredPrune
from bitfront.passes.prune_groups import Status, find_prune_groups
from bitfront.passes.prune_importance import Importance
from bitfront.sensitivity.divergence import kl_divergence, noise_to_signal
from bitfront.sensitivity.divergence_metric import KL, NSR
from bitfront.sensitivity.sparsity import SparsityRow, SparsityTable, planned_sparsity_steps, with_monotone_losses
from tests.passes.nets import same_weights
from tests.sensitivity.sparsity_nets import DATA, USED, Net, classifier, rows_of, scored


def _by_level(table: SparsityTable, group: str) -> dict[float, SparsityRow]:
    return {row.sparsity: row for row in table.rows if row.group == group}


def _logits(module: nn.Module, silent: list[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of the network in which these hidden units are never read."""
    masked = copy.deepcopy(module)
    with torch.no_grad():
        masked.get_parameter("last.weight")[:, silent] = 0
        outputs: Tensor = masked(torch.from_numpy(USED))
    return outputs.double().numpy()


def _least(net: Net, count: int) -> list[int]:
    """Hidden units of least magnitude: of their rows, and of the columns that read them."""
    size = net.hidden.weight.square().sum(1) + net.last.weight.square().sum(0)
    order: list[int] = size.argsort().tolist()
    return order[:count]


@pytest.mark.parametrize(("divergence_metric", "rule"), [(KL, kl_divergence), (NSR, noise_to_signal)])
def test_scores_are_those_of_units_silenced_by_hand(divergence_metric: str, rule: Callable[..., Any]) -> None:
    """Each level's score is the mean divergence of the network that does not read its least important units."""
    net = classifier()
    rows = _by_level(scored(net, divergence_metric=divergence_metric), "hidden")
    whole, highest = _logits(net, []), 0.0
    for level, gone in ((0.25, 4), (0.5, 8), (0.75, 12)):
        score = float(rule(whole, _logits(net, _least(net, gone))).mean())
        wrong = float(rule(whole, _logits(net, [*_least(net, gone)[1:], _least(net, 16)[-1]])).mean())
        highest = max(highest, score)
        assert rows[level].loss == pytest.approx(highest, rel=1e-4)
        assert wrong != pytest.approx(highest, rel=1e-2), "another unit would not be noticed"
        assert (rows[level].kept, rows[level].channels) == (16 - gone, 16)
        assert rows[level].dropped == ""
    assert (rows[0.0].loss, rows[0.0].kept, rows[0.0].macs_share) == (0.0, 16, 0.0)


def test_a_branch_goes_whole() -> None:
    """It has the one level 1, whose score is that of the network in which it adds nothing."""
    net = classifier()
    silent = copy.deepcopy(net)
    with torch.no_grad():
        silent.last.weight.zero_()
        silent.last.bias.zero_()
    table = scored(net)
    (branch,) = (group for group in find_prune_groups(net, DATA.inputs) if group.branch)
    rows = _by_level(table, branch.name)
    assert list(rows) == [0.0, 1.0]
    assert rows[1.0].loss == pytest.approx(float(kl_divergence(_logits(net, []), _logits(silent, [])).mean()), rel=1e-4)
    assert rows[1.0].kept == 0


def test_multiply_adds_that_go_are_counted() -> None:
    """Half of the hidden units carry half of two layers; the branch carries all of them."""
    total = 6 * 12 + 12 * 16 + 16 * 12 + 12 * 3
    table = scored(classifier())
    assert _by_level(table, "hidden")[0.5].macs_share == pytest.approx(2 * 12 * 8 / total)
    assert max(row.macs_share for row in table.rows) == pytest.approx(2 * 12 * 16 / total)


def test_only_prunable_groups_are_scored() -> None:
    """The first layer's channels and the outputs have one row with the reason, and are not among the losses."""
    net = classifier()
    groups = find_prune_groups(net, DATA.inputs)
    assert {group.status for group in groups} == set(Status)
    table = scored(net)
    assert list(dict.fromkeys(row.group for row in table.rows)) == [group.name for group in groups]
    others = {group.name: group.reason for group in groups if group.status is not Status.PRUNABLE}
    rows = [row for row in table.rows if row.group in others]
    assert {row.group: row.dropped for row in rows} == others
    assert all((row.sparsity, row.kept) == (0.0, row.channels) and math.isnan(row.loss) for row in rows)
    assert len(rows) == len(others)
    assert list(table.losses()) == [group.name for group in groups if group.status is Status.PRUNABLE]


def test_batch_norm_is_measured_anew() -> None:
    """The score is that of a pruned network whose statistics fit what its channels now get."""
    net = classifier(norm=True)
    table = scored(net, levels=(0.5,))
    groups = find_prune_groups(net, DATA.inputs)
    pruned = StructuredPrune(sparsity={"hidden": 0.5}, importance=Importance.MAGNITUDE, round_to=1).apply(
        net, DATA, groups=groups
    )
    whole = _logits(net, [])
    stale = float(kl_divergence(whole, _plain(pruned)).mean())
    reestimate_batch_norm(pruned, DATA.inputs)
    fresh = float(kl_divergence(whole, _plain(pruned)).mean())
    assert _by_level(table, "hidden")[0.5].loss == pytest.approx(fresh, rel=1e-4)
    assert stale != pytest.approx(fresh, rel=1e-2)


def _plain(module: nn.Module) -> np.ndarray[Any, np.dtype[np.float64]]:
    with torch.no_grad():
        outputs: Tensor = module.eval()(torch.from_numpy(USED))
    return outputs.double().numpy()


def test_levels_that_round_alike_are_scored_once() -> None:
    """Of levels that leave as many channels the lowest stays; one that leaves all says so; none is pruned for it."""
    steps: list[str] = []
    levels = (0.1, 0.4, 0.5, 0.75, 0.9)
    net = classifier()
    rows = _by_level(scored(net, levels=levels, round_to=8, on_step=steps.append), "hidden")
    assert {level: row.dropped for level, row in rows.items()} == {
        0.0: "",
        0.1: "rounding leaves all 16 channels",
        0.4: "",
        0.5: "rounding leaves 8 of 16 channels, as at 0.4",
        0.75: "rounding leaves 8 of 16 channels, as at 0.4",
        0.9: "rounding leaves 8 of 16 channels, as at 0.4",
    }
    assert all(math.isnan(row.loss) == bool(row.dropped) for row in rows.values())
    assert [step for step in steps if step.startswith("hidden ")] == ["hidden 0.4"]
    groups = find_prune_groups(net, DATA.inputs)
    assert len(steps) == planned_sparsity_steps(groups, levels=levels, round_to=8)


def test_levels_come_ascending_and_once() -> None:
    """In whatever order they are given."""
    assert list(_by_level(scored(classifier(), levels=(0.5, 0.25, 0.5)), "hidden")) == [0.0, 0.25, 0.5]


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5])
def test_levels_are_fractions(level: float) -> None:
    """Levels of channels lie between 0 and 1, both excluded."""
    with pytest.raises(ConfigError, match=rf"expected sparsities in \(0, 1\), got .*{level:g}"):
        scored(classifier(), levels=(0.5, level))


def _row(sparsity: float, loss: float, group: str = "a", dropped: str = "") -> SparsityRow:
    return SparsityRow(group=group, sparsity=sparsity, kept=1, channels=2, macs_share=0.1, loss=loss, dropped=dropped)


def test_a_higher_sparsity_never_costs_less() -> None:
    """Losses are running maxima within a group; dropped levels have no say."""
    rows = [_row(0, 0), _row(0.2, 0.3), _row(0.3, math.nan, dropped="why"), _row(0.5, 0.1), _row(0.7, 0.4)]
    found = with_monotone_losses([*rows, _row(0, 0, "b"), _row(0.5, 0.05, "b")])
    assert [row.loss for row in found if not row.dropped] == [0, 0.3, 0.3, 0.4, 0, 0.05]
    assert found[2].dropped == "why"


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_what_is_not_finite_is_dropped(score: float) -> None:
    """With its reason, and without touching the levels above it."""
    found = with_monotone_losses([_row(0, 0), _row(0.25, score), _row(0.5, 0.2)])
    assert found[1].dropped == f"the outputs of the network pruned so are not finite (score {score:g})"
    assert math.isnan(found[1].loss)
    assert found[2].loss == 0.2


def test_outputs_that_are_not_finite_reach_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruned network that gives NaN loses that level, and says so again when it comes from the store."""
    prune = StructuredPrune.apply

    def spoilt(self: StructuredPrune, *args: Any, **kwargs: Any) -> nn.Module:
        found = prune(self, *args, **kwargs)
        if 0.5 in self.sparsity.values():
            with torch.no_grad():
                found.get_parameter("classifier.bias").fill_(math.nan)
        return found

    store, net = ContentStore(None), classifier()
    monkeypatch.setattr(StructuredPrune, "apply", spoilt)
    for _ in range(2):
        rows = _by_level(scored(net, store=store), "hidden")
        assert "are not finite (score nan)" in rows[0.5].dropped
        assert rows[0.25].dropped == rows[0.75].dropped == ""


@pytest.mark.parametrize("error", [ModelError("cannot be traced"), RuntimeError("shapes\nstack")])
def test_a_network_that_does_not_run_drops_the_level(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The reason is what was said, in one line."""
    prune = StructuredPrune.apply

    def refuse(self: StructuredPrune, *args: Any, **kwargs: Any) -> nn.Module:
        if 0.75 in self.sparsity.values():
            raise error
        return prune(self, *args, **kwargs)

    monkeypatch.setattr(StructuredPrune, "apply", refuse)
    rows = _by_level(scored(classifier()), "hidden")
    said = str(error).splitlines()[0]
    assert rows[0.75].dropped == f"the network does not run pruned so ({said})"
    assert [level for level, row in rows.items() if not row.dropped] == [0.0, 0.25, 0.5]


def test_a_network_whose_own_outputs_are_not_finite_is_an_error() -> None:
    """There is nothing to compare with."""
    inputs = {"rows": np.full((5, 6), np.inf, np.float32)}
    with pytest.raises(DataError, match="NaN or infinity"):
        scored(classifier(), inputs=inputs)


def test_a_run_that_was_stopped_repeats_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was scored before is found in the store, and the table is the same as without the interruption."""
    net, store, steps = classifier(norm=True), ContentStore(None), 0
    pruned: list[dict[str, float]] = []
    prune = StructuredPrune.apply

    def counted(self: StructuredPrune, *args: Any, **kwargs: Any) -> nn.Module:
        pruned.append(dict(self.sparsity))
        return prune(self, *args, **kwargs)

    def stop(_: str) -> None:
        nonlocal steps
        steps += 1
        if steps == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(StructuredPrune, "apply", counted)
    with pytest.raises(KeyboardInterrupt):
        scored(net, store=store, on_step=stop)
    assert len(pruned) == 2
    table = scored(net, store=store)
    assert len(pruned) == len({str(sparsity) for sparsity in pruned})
    done = len(pruned)
    assert scored(net, store=store) == table
    assert len(pruned) == done
    assert table.frame().equals(scored(net).frame())


@pytest.mark.parametrize(
    "change",
    [
        {"key": "other"},
        {"divergence_metric": NSR},
        {"importance": "taylor"},
        {"round_to": 4},
        {"data": TrainingData(inputs=rows_of(64, 3))},
        {"data": TrainingData(inputs=DATA.inputs, labels=np.zeros(64, np.int64))},
        {"inputs": rows_of(50, 4)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_scores_of_something_else_are_not_taken(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    """Another network, data, inputs, divergence metric or option is scored anew."""
    net, store = classifier(), ContentStore(None)
    scored(net, store=store, levels=(0.5,))

    def refuse(*_: Any, **__: Any) -> nn.Module:
        raise KeyboardInterrupt

    monkeypatch.setattr(StructuredPrune, "apply", refuse)
    with pytest.raises(KeyboardInterrupt):
        scored(net, store=store, levels=(0.5,), **change)


def test_importances_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All prunings share those of the unpruned network."""
    calls = 0
    own = StructuredPrune.importances

    def counted(self: StructuredPrune, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        return own(self, *args)

    monkeypatch.setattr(StructuredPrune, "importances", counted)
    scored(classifier(), importance="taylor")
    assert calls == 1


@pytest.mark.parametrize("training", [False, True])
def test_the_module_is_left_as_it_is(training: bool) -> None:
    """Weights, statistics and mode."""
    net = classifier(norm=True).train(training)
    before = copy.deepcopy(net)
    scored(net, importance="taylor")
    assert same_weights(net, before)
    assert all(part.training is training for part in net.modules())


def test_the_table_reads_as_a_search_and_a_person_want_it() -> None:
    """``losses`` holds what stays; the frame holds every row."""
    rows = (_row(0, 0.0), _row(0.25, 0.1), _row(0.5, math.nan, dropped="why"), _row(0, 0.0, "b"))
    table = SparsityTable(divergence_metric=KL, samples=3, rows=rows)
    assert table.losses() == {"a": {0: 0.0, 0.25: 0.1}, "b": {0: 0.0}}
    frame = table.frame()
    assert list(frame.columns) == ["group", "sparsity", "kept", "channels", "macs_share", "loss", "trained", "dropped"]
    assert list(frame["dropped"]) == ["", "", "why", ""]
    assert frame["kept"].dtype.kind == "i"


def test_a_table_says_what_it_was_scored_on() -> None:
    """The divergence metric, and how many inputs there really were."""
    table = scored(classifier(), inputs=rows_of(7, 5), divergence_metric=NSR)
    assert (table.divergence_metric, table.samples) == (NSR, 7)
