"""Cleaning: what is dropped, the loss, monotony along the ladder, ranks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.core import FP32, Scheme
from bitfront.lowering.rounding.methods import uses_calibration
from bitfront.sensitivity.losses import contexts_disagree, with_losses
from bitfront.sensitivity.precision_order import (
    at_least_as_precise,
    best_of_each_rank,
    from_most_precise,
    lowest,
    rank,
    ranking,
)
from bitfront.sensitivity.table import SensitivityRow, SensitivityTable

TEXTS = (
    "fp32",
    "fp16",
    "int8:nearest",
    "int8:mse",
    "int8:nearest:weight-only",
    "int4:nearest",
    "int4:mse",
    "int4:gptq",
    "int4:gptq:weight-only",
    "int4:nearest:block32",
    "int4:nearest:block64",
)


def _row(
    text: str, alone: float, restored: float = math.nan, group: str = "g", *, error: float = 0.0, dropped: str = ""
) -> SensitivityRow:
    return SensitivityRow(
        group=group,
        scheme=Scheme.parse(text),
        single_layer=alone,
        leave_one_out=restored,
        leave_one_out_error=error,
        loss=math.nan,
        dropped=dropped,
    )


def _losses(*rows: SensitivityRow) -> dict[str, float]:
    return {row.scheme.text: row.loss for row in with_losses(rows)}


def test_a_certain_loss_is_the_mean_of_the_non_negative_parts() -> None:
    """Without sampling error, loss = ½ max(alone, 0) + ½ max(restored, 0); FP32 has none."""
    losses = _losses(
        _row("fp32", 0, 0), _row("fp16", 0.0, -0.1), _row("int8:mse", 0.2, -0.1), _row("int4:mse", 0.4, 0.8)
    )
    assert losses == {"fp32": 0, "fp16": 0, "int8:mse": pytest.approx(0.1), "int4:mse": pytest.approx(0.6)}


@pytest.mark.parametrize(
    ("error", "loss"),
    [(0.0, 0.3), (0.05, 0.275), (0.1, 0.2), (10.0, 0.2), (math.inf, 0.2)],
    ids=["certain", "four errors", "two errors", "noise", "one sample"],
)
def test_restored_counts_as_far_as_it_stands_out(error: float, loss: float) -> None:
    """The context moves the loss by ½ (1 − (2 e / difference)²) of the difference, and by nothing inside 2 e."""
    assert _losses(_row("fp32", 0, 0), _row("int8:mse", 0.2, 0.4, error=error))["int8:mse"] == pytest.approx(loss)


def test_noise_in_context_does_not_invent_sensitivity() -> None:
    """A cast to FP16 that moves an all-low network within its noise stays free, and raises nothing below it."""
    losses = _losses(
        _row("fp32", 0, 0), _row("fp16", 1e-9, 1.3e-3, error=1e-3), _row("int8:mse", 1e-5, -2e-3, error=1e-3)
    )
    assert losses == {"fp32": 0, "fp16": pytest.approx(1e-9), "int8:mse": pytest.approx(1e-5)}


def test_a_rounding_not_measured_in_context_takes_its_siblings() -> None:
    """Of one rank, roundings differ by their difference alone, so the best alone stays best."""
    losses = _losses(_row("fp32", 0, 0), _row("int4:nearest", 0.5), _row("int4:gptq", 0.1, 0.3), _row("int4:mse", 0.2))
    assert losses["int4:gptq"] == pytest.approx(0.2)
    assert losses["int4:mse"] == pytest.approx(0.3)
    assert losses["int4:nearest"] == pytest.approx(0.6)


def test_without_context_the_loss_is_alone() -> None:
    """Where the all-low network could not be scored, the loss is the alone score."""
    assert _losses(_row("fp32", 0, 0), _row("int8:mse", 0.2))["int8:mse"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (_row("int8:mse", math.nan), "alone in the FP32 network are not finite"),
        (_row("int8:mse", math.inf), "alone in the FP32 network are not finite"),
        (_row("int8:mse", 0.1, math.inf), "in the all-low network are not finite"),
        (_row("int8:mse", math.nan, dropped="the runtime refused it"), "the runtime refused it"),
    ],
    ids=["nan", "infinite", "infinite in context", "refused"],
)
def test_unusable_scores_drop_the_scheme(row: SensitivityRow, reason: str) -> None:
    """NaN, infinite and refused schemes leave with a reason, stay in the table, and pull nothing along."""
    rows = with_losses([_row("fp32", 0, 0), row, _row("int4:mse", 0.3, 0.5)])
    assert [kept.scheme.text for kept in rows] == ["fp32", "int8:mse", "int4:mse"]
    assert reason in rows[1].dropped
    assert math.isnan(rows[1].loss)
    assert rows[2].loss == pytest.approx(0.4)
    table = SensitivityTable(divergence_metric="kl", samples=8, rows=rows)
    assert [scheme.text for scheme in table.losses()["g"]] == ["fp32", "int4:mse"]


def test_noise_never_makes_a_lower_precision_better() -> None:
    """INT4 below INT8 is raised to INT8's best rounding, INT8 below FP16 to FP16's loss."""
    losses = _losses(
        _row("fp32", 0, 0),
        _row("fp16", 0.02, 0.02),
        _row("int8:nearest", 0.3, 0.3),
        _row("int8:mse", 0.2, 0.2),
        _row("int8:mse:weight-only", 0.01, 0.01),
        _row("int4:mse", 0.1, 0.1),
        _row("int4:gptq", 0.1, 0.1),
        _row("int4:gptq:weight-only", 0.05, 0.05),
    )
    assert losses == {
        "fp32": 0,
        "fp16": 0.02,
        "int8:nearest": 0.3,
        "int8:mse": 0.2,
        "int8:mse:weight-only": 0.02,  # fp16
        "int4:mse": 0.2,  # int8:mse
        "int4:gptq": 0.2,  # the better rounding of int8, for int8:gptq was not offered
        "int4:gptq:weight-only": 0.05,  # not comparable with 8-bit activations
    }


@given(
    st.dictionaries(
        st.sampled_from(TEXTS[1:]), st.tuples(st.floats(-1, 5), st.floats(-1, 5) | st.just(math.nan)), max_size=10
    )
)
def test_cleaned_losses_are_monotone(scores: dict[str, tuple[float, float]]) -> None:
    """Whatever was measured, no cleaned loss is negative or below a more precise rank's, if that rounds as well."""
    rows = with_losses([_row("fp32", 0, 0), *(_row(text, *found) for text, found in scores.items())])
    best = best_of_each_rank({row.scheme: row.loss for row in rows})
    losses = {row.scheme: row.loss for row in rows}
    for row in rows:
        assert row.loss >= 0
        for upper in best.values():
            on_data = uses_calibration(row.scheme.weights) and not any(
                uses_calibration(scheme.weights) for scheme in losses if rank(scheme) == rank(upper)
            )
            if at_least_as_precise(upper, row.scheme) and not (
                on_data and upper.precision.bits == row.scheme.precision.bits
            ):
                assert row.loss >= losses[upper]


def test_groups_do_not_mix() -> None:
    """One group's scores leave another's alone, and the order of rows stays."""
    rows = with_losses(
        [_row("fp32", 0, 0, "a"), _row("int8:mse", 9, 9, "a"), _row("fp32", 0, 0, "b"), _row("int4:mse", 1, 1, "b")]
    )
    assert [(row.group, row.loss) for row in rows] == [("a", 0), ("a", 9), ("b", 0), ("b", 1)]


def test_precision_is_a_partial_order() -> None:
    """More bits, floating activations and smaller blocks are more precise; trades between them do not compare."""
    order = {
        ("fp32", "fp16"): True,
        ("fp16", "int8:mse:weight-only"): True,
        ("int8:mse:weight-only", "int8:mse"): True,
        ("int8:mse", "int4:gptq"): True,
        ("int8:nearest:weight-only", "int4:nearest:block32"): True,
        ("int4:nearest:block32", "int4:nearest:block64"): True,
        ("int4:nearest:block64", "int4:gptq:weight-only"): True,
        ("int8:mse", "int4:gptq:weight-only"): False,
        ("int4:gptq:weight-only", "int8:mse"): False,
    }
    for (upper, lower), expected in order.items():
        assert at_least_as_precise(Scheme.parse(upper), Scheme.parse(lower)) is expected
        if expected:
            assert not at_least_as_precise(Scheme.parse(lower), Scheme.parse(upper))


@given(st.permutations([Scheme.parse(text) for text in TEXTS]))
def test_order_respects_the_partial_order(schemes: list[Scheme]) -> None:
    """Sorted from the most precise, nothing comes before a scheme that is more precise."""
    order = from_most_precise(schemes)
    for index, scheme in enumerate(order):
        for later in order[index + 1 :]:
            assert not at_least_as_precise(later, scheme) or at_least_as_precise(scheme, later)


def test_lowest_has_fewest_bits_then_the_best_rounding() -> None:
    """Bits first, then 8-bit activations, then the score; a score that is not finite only without any other."""
    scores = {"fp32": 0.0, "int8:mse": 0.1, "int4:mse": 0.4, "int4:gptq": 0.3, "int4:gptq:weight-only": 0.2}
    parsed = {Scheme.parse(text): value for text, value in scores.items()}
    assert lowest(parsed).text == "int4:gptq"
    assert lowest({**parsed, Scheme.parse("int4:gptq"): math.nan}).text == "int4:mse"
    assert lowest({FP32: 0.0}) == FP32


def test_ranking_is_by_the_lowest_scheme() -> None:
    """Groups are ranked by the loss of their lowest scheme that stays, not by the largest loss of any."""
    rows = (
        *(_row("fp32", 0, 0, group) for group in "a"),
        _row("int8:mse", 0.1, 0.1, "a"),
        _row("int4:nearest", 5, 5, "a"),
        _row("int4:gptq", 0.2, 0.2, "a"),
        _row("fp32", 0, 0, "b"),
        _row("int8:mse", 0.3, 0.3, "b"),
        _row("int4:gptq", math.nan, math.nan, "b"),
        _row("fp32", 0, 0, "c"),
    )
    assert ranking(SensitivityTable(divergence_metric="kl", samples=8, rows=with_losses(rows))) == ("b", "a", "c")


def test_contexts_that_disagree_are_shown() -> None:
    """A disagreement needs a factor and two standard errors."""
    assert contexts_disagree(_row("int8:mse", 0.1, 0.5))
    assert contexts_disagree(_row("int8:mse", 0.5, -0.1))
    assert not contexts_disagree(_row("int8:mse", 0.1, 0.2))
    assert not contexts_disagree(_row("fp16", 1e-9, 1e-3, error=1e-3))
    assert not contexts_disagree(_row("int8:mse", 0.1))


def test_a_rounding_on_data_is_not_raised_to_one_that_is_not() -> None:
    """GPTQ at four bits is no worse for nearest rounding in groups; at eight bits nearest is a bound for it still."""
    scores = {"int8:nearest": 0.01, "int4:mse": 0.5, "int4:gptq:weight-only": 0.001, "int4:mse:block32": 0.3}
    rows = [
        SensitivityRow(group="a", scheme=Scheme.parse(text), single_layer=value, leave_one_out=math.nan, loss=math.nan)
        for text, value in scores.items()
    ]
    losses = {row.scheme.text: row.loss for row in with_losses(rows)}
    assert losses["int4:gptq:weight-only"] == 0.001
    assert losses["int4:mse"] == 0.5
    weight_only = SensitivityRow(
        group="a", scheme=Scheme.parse("int8:mse:weight-only"), single_layer=0.02, leave_one_out=math.nan, loss=math.nan
    )
    losses = {row.scheme.text: row.loss for row in with_losses([*rows, weight_only])}
    assert losses["int4:gptq:weight-only"] == 0.02
