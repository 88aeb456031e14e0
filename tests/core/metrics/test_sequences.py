"""Error rates of sequences: edit distance against the plain table, greedy decoding and rates by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.core import METRICS, DataError, UsageError
from bitfront.core.metric_spec import metric_of
from bitfront.core.metrics.sequences import edit_distance, greedy_ctc
from bitfront.core.ragged import ragged


def value(text: str, output: Any, labels: Any) -> float:
    """The metric of one output."""
    metric = metric_of(text, METRICS)
    assert metric is not None
    return float(metric((np.asarray(output),), np.asarray(labels)))


def steps(tokens: Sequence[int], count: int = 6) -> Any:
    """Scores (1, steps, count) whose largest are these tokens."""
    return np.eye(count, dtype=np.float32)[list(tokens)][None]


def table(one: Sequence[int], other: Sequence[int]) -> int:
    """Edit distance cell by cell (Wagner and Fischer, 1974)."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        before, row = row, [i]
        for j, right in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (left != right)))
    return row[-1]


@given(st.lists(st.integers(0, 3), max_size=9), st.lists(st.integers(0, 3), max_size=9))
def test_edit_distance_is_that_of_the_table(one: list[int], other: list[int]) -> None:
    """Row at once or cell by cell, empty sequences among them."""
    assert edit_distance(one, other) == table(one, other)


@pytest.mark.parametrize(
    ("one", "other", "edits"), [("kitten", "sitting", 3), ("", "", 0), ("abc", "", 3), ("", "ab", 2), ("ab", "ba", 2)]
)
def test_edit_distance_by_hand(one: str, other: str, edits: int) -> None:
    """Insertions, deletions and substitutions."""
    assert edit_distance(one, other) == edits


def test_greedy_decoding() -> None:
    """What repeats is one token, unless a blank stands between."""
    assert greedy_ctc(steps([0, 1, 1, 0, 1, 2, 2, 0])[0], 0) == [1, 1, 2]
    assert greedy_ctc(steps([5, 1, 5])[0], 5) == [1]
    assert greedy_ctc(steps([])[0], 0) == []


@pytest.mark.parametrize(
    ("text", "output", "labels", "expected"),
    [
        pytest.param("cer", steps([1, 1, 0, 2, 3]), [[1, 2, 3]], 0.0, id="all right"),
        pytest.param("cer", steps([1, 0, 2]), [[1, 2, 3, 4]], 2 / 4, id="two missing"),
        pytest.param("cer", steps([1, 2, 3, 4]), [[1, -1, -1]], 3.0, id="more errors than tokens"),
        pytest.param("cer", steps([0, 0]), [[1, 2, 0, -1]], 1.0, id="nothing heard"),
        pytest.param("cer:blank=5", steps([0, 5, 0]), [[0, 0, 5]], 0.0, id="another blank"),
        pytest.param("cer", [[1, 1, 0, -1]], [[1, 1]], 0.0, id="decoded already"),
        # "12 3" for "12 4": one word of two, one token of four.
        pytest.param("wer:separator=5", steps([1, 2, 5, 3]), [[1, 2, 5, 4]], 1 / 2, id="a word of two"),
        pytest.param("cer:blank=0", steps([1, 2, 5, 3]), [[1, 2, 5, 4]], 1 / 4, id="a token of four"),
        pytest.param("wer:separator=5", steps([5, 1, 5, 5, 2]), [[1, 5, 2, -1]], 0.0, id="separators around"),
    ],
)
def test_rates_by_hand(text: str, output: Any, labels: Any, expected: float) -> None:
    """Edits over the reference's length."""
    assert value(text, output, labels) == pytest.approx(expected)


def test_samples_count_by_their_length() -> None:
    """One edit in three tokens of two samples of different lengths; an empty reference has insertions alone."""
    rows = ragged([steps([1, 0, 2])[0], steps([3])[0]])
    assert float(METRICS["cer"]((rows,), np.array([[1, 2], [4, -1]]))) == pytest.approx(1 / 3)
    assert float(METRICS["cer"]((rows,), np.array([[1, 2], [-1, -1]]))) == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("text", "output", "labels", "message"),
    [
        ("cer", steps([1]), [[-1, 0]], "no label holds a token"),
        ("cer", steps([1]), [1], r"a sample's label has shape \(\), expected token numbers \(length,\)"),
        ("cer:blank=6", steps([1]), [[1]], "blank=6 is none of the output's 6 tokens"),
        ("cer", np.zeros((1, 3)), [[1]], r"of shape \(3,\) and dtype float64 is no sequence: expected scores"),
    ],
)
def test_what_does_not_fit(text: str, output: Any, labels: Any, message: str) -> None:
    """The message has the shape that came and what was expected."""
    with pytest.raises(DataError, match=message):
        value(text, output, labels)


def test_words_need_a_separator() -> None:
    """Counted as tokens, a word error rate would be a character error rate by another name."""
    with pytest.raises(UsageError, match="the token between words is not known") as caught:
        value("wer", steps([1]), [[1]])
    assert "wer:separator=4" in str(caught.value.hint)
