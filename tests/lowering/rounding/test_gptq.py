"""GPTQ: a case worked by hand, its guarantee, dead columns, groups and blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitfront.lowering.rounding import gptq
from bitfront.lowering.rounding.gptq import correct_mismatch, gptq_integers, proxy_loss
from bitfront.lowering.rounding.scales import mse_scales, nearest_integers

Floats = NDArray[np.float64]


def _correlated(groups: int, outs: int, k: int, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(groups, k, max(1, k // 3)))
    inputs = mixing @ rng.normal(size=(groups, max(1, k // 3), 400)) + 0.3 * rng.normal(size=(groups, k, 400))
    return rng.normal(size=(groups, outs, k)), 2 * inputs @ inputs.swapaxes(1, 2)


def _scales(rows: Floats, bits: int = 4) -> Floats:
    flat = mse_scales(rows.reshape(-1, rows.shape[-1]), bits)
    return flat.astype(np.float64).reshape(*rows.shape[:2], 1)


def _loss(rows: Floats, integers: NDArray[Any], scales: Floats, hessian: Floats) -> Floats:
    return proxy_loss(rows - scales * integers, hessian)


def test_two_columns_by_hand() -> None:
    """W = (1.4, 1.4), H = ((2, 1.8), (1.8, 2)), scale 1.

    The first column becomes 1, its error is 0.4. The best second weight is then 1.4 + 0.4 · 1.8 / (2 + damping 0.02)
    = 1.756, which becomes 2. Nearest, (1, 1), has loss 0.4² · 7.6 = 1.216; (1, 2) has
    2·0.16 − 2·1.8·0.4·0.6 + 2·0.36 = 0.176.
    """
    rows, scales = np.array([[[1.4, 1.4]]]), np.ones((1, 1, 1))
    hessian = np.array([[[2.0, 1.8], [1.8, 2.0]]])
    integers = gptq_integers(rows, hessian, scales, 8)
    assert integers.tolist() == [[[1, 2]]]
    assert _loss(rows, integers, scales, hessian)[0, 0] == pytest.approx(0.176)
    assert _loss(rows, nearest_integers(rows, scales, 8), scales, hessian)[0, 0] == pytest.approx(1.216)


def test_columns_go_by_descending_diagonal() -> None:
    """With the second column the more important one, it is rounded first and the first one follows it."""
    hessian = np.array([[[2.0, 2.5], [2.5, 4.0]]])
    integers = gptq_integers(np.array([[[1.4, 1.4]]]), hessian, np.ones((1, 1, 1)), 8)
    assert integers.tolist() == [[[2, 1]]]


@pytest.mark.parametrize("k", [1, 9, 40, 300], ids=lambda k: f"k={k}")
def test_proxy_loss_is_never_worse_than_nearest(k: int) -> None:
    """Row by row no worse than nearest integers with the same scales; on correlated inputs much better."""
    rows, hessian = _correlated(2, 12, k, seed=k)
    scales = _scales(rows)
    ours = _loss(rows, gptq_integers(rows, hessian, scales, 4), scales, hessian)
    nearest = _loss(rows, nearest_integers(rows, scales, 4), scales, hessian)
    assert (ours <= nearest).all()
    if k > 1:
        assert ours.sum() < 0.8 * nearest.sum()


@pytest.mark.parametrize("columns", [1, 7, 64])
def test_columns_in_batches_are_columns_one_by_one(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are updated together: integers agree with those of one batch, but for ties that rounding decides."""
    rows, hessian = _correlated(2, 12, 150, seed=11)
    scales = _scales(rows)
    monkeypatch.setattr(gptq, "LAZY_COLUMNS", 1000)
    whole = gptq_integers(rows, hessian, scales, 4)
    monkeypatch.setattr(gptq, "LAZY_COLUMNS", columns)
    batched = gptq_integers(rows, hessian, scales, 4)
    assert np.mean(batched == whole) > 0.95
    assert np.mean(nearest_integers(rows, scales, 4) == whole) < 0.9, "the test says nothing otherwise"


def test_rows_that_would_end_worse_keep_nearest_codes() -> None:
    """GPTQ is greedy: here it would come to (0, −1, −1) with a loss of 0.476, nearest integers have 0.440."""
    inputs = np.array([[0.5, 1.4, 0.2], [0.3, 0.7, 1.6], [-0.7, 0.7, 1.6]])
    rows, scales, hessian = np.array([[[0.1, -0.2, -0.6]]]), np.full((1, 1, 1), 0.5), (2 * inputs @ inputs.T)[None]
    assert _loss(rows, np.array([[[0, -1, -1]]]), scales, hessian)[0, 0] == pytest.approx(0.4762)
    assert _loss(rows, np.array([[[0, 0, -1]]]), scales, hessian)[0, 0] == pytest.approx(0.4402)
    assert gptq_integers(rows, hessian, scales, 4).tolist() == [[[0, 0, -1]]]


def test_beyond_the_first_batch_columns_still_follow() -> None:
    """Columns beyond the first 128 make up for those before: all of the gain over nearest is not in the first ones."""
    rows, hessian = _correlated(1, 12, 300, seed=12)
    scales = _scales(rows)
    integers = gptq_integers(rows, hessian, scales, 4)
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=-1, kind="stable")[0]
    later = order[gptq.LAZY_COLUMNS :]
    mixed = integers.copy()
    mixed[..., later] = nearest_integers(rows, scales, 4)[..., later]
    ours, without = (_loss(rows, found, scales, hessian).sum() for found in (integers, mixed))
    assert ours < 0.5 * without


def test_the_loss_oracle_rejects_a_hessian_of_other_columns() -> None:
    """Compensating with the columns' Hessian in reverse order is worse than nearest: an axis bug shows."""
    rows, hessian = _correlated(1, 12, 40, seed=1)
    scales = _scales(rows)
    wrong = gptq_integers(rows, np.ascontiguousarray(hessian[:, ::-1, ::-1]), scales, 4)
    nearest = nearest_integers(rows, scales, 4)
    assert _loss(rows, wrong, scales, hessian).sum() > _loss(rows, nearest, scales, hessian).sum()


def test_the_loss_oracle_rejects_doubled_scales() -> None:
    """Codes read with scales ×2 lose far more than nearest."""
    rows, hessian = _correlated(1, 12, 40, seed=2)
    scales = _scales(rows)
    integers = gptq_integers(rows, hessian, scales, 4)
    nearest = _loss(rows, nearest_integers(rows, scales, 4), scales, hessian).sum()
    assert _loss(rows, integers, 2 * scales, hessian).sum() > 10 * nearest


def test_groups_are_independent() -> None:
    """Groups rounded together have the integers they have alone."""
    rows, hessian = _correlated(3, 4, 9, seed=3)
    scales = _scales(rows)
    together = gptq_integers(rows, hessian, scales, 4)
    for g in range(3):
        part = slice(g, g + 1)
        np.testing.assert_array_equal(together[part], gptq_integers(rows[part], hessian[part], scales[part], 4))


def test_zeros_of_a_sparse_weight_stay() -> None:
    """Their integers are zero, and the other weights make up for what was wanted of them."""
    rows, hessian = _correlated(1, 12, 40, seed=7)
    zeros = np.random.default_rng(8).random(rows.shape) < 0.5
    scales = _scales(rows)
    integers = gptq_integers(rows, hessian, scales, 4, zeros)
    assert not integers[zeros].any()
    assert integers[~zeros].any()
    plain = np.where(zeros, 0, nearest_integers(rows, scales, 4))
    assert _loss(rows, integers, scales, hessian).sum() < 0.8 * _loss(rows, plain, scales, hessian).sum()


def test_dead_columns_are_rounded_to_nearest() -> None:
    """A column whose inputs were always zero keeps its nearest code; so does a layer without any input."""
    rows, hessian = _correlated(1, 6, 12, seed=4)
    hessian[:, 5, :] = hessian[:, :, 5] = 0
    scales = _scales(rows)
    nearest = nearest_integers(rows, scales, 4)
    np.testing.assert_array_equal(gptq_integers(rows, hessian, scales, 4)[..., 5], nearest[..., 5])
    np.testing.assert_array_equal(gptq_integers(rows, np.zeros_like(hessian), scales, 4), nearest)


def test_the_hessians_scale_does_not_matter() -> None:
    """Any positive multiple of the Hessian gives the same integers."""
    rows, hessian = _correlated(1, 8, 30, seed=5)
    scales = _scales(rows)
    np.testing.assert_array_equal(
        gptq_integers(rows, hessian, scales, 4), gptq_integers(rows, hessian * 2.0**20, scales, 4)
    )


def test_corrected_weights_undo_what_the_layers_before_did() -> None:
    """Where the prefix has halved one input and mixed another in, the new weights meet the old outputs."""
    rng = np.random.default_rng(6)
    clean = rng.normal(size=(1, 6, 500))
    seen = clean.copy()
    seen[:, 2] *= 0.5
    seen[:, 4] += 0.3 * seen[:, 1]
    rows = rng.normal(size=(1, 5, 6))
    transposed = seen.swapaxes(1, 2)
    moved = correct_mismatch(rows, 2 * seen @ transposed, 2 * (clean - seen) @ transposed)

    def miss(weights: Floats) -> float:
        return float(((weights @ seen - rows @ clean) ** 2).sum())

    assert miss(moved) < 0.01 * miss(rows)
    wrong_sign = correct_mismatch(rows, 2 * seen @ transposed, 2 * (seen - clean) @ transposed)
    assert miss(wrong_sign) > miss(rows), "a drift of the wrong sign must show"
