"""Mean negative log likelihood of tokens, the loss of language models; its exponential is the perplexity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitfront.core.errors import DataError
from bitfront.core.metric import Array
from bitfront.core.metrics.class_numbers import label_classes
from bitfront.core.metrics.classes import TOKEN_IGNORE


def negative_log_likelihood(
    outputs: tuple[Array, ...], labels: Array, *, ignore: int = TOKEN_IGNORE
) -> NDArray[np.float64]:
    """Mean over a sample's tokens of −log softmax(scores)[label], in nats.

    Args:
        outputs: The first has scores (n, tokens, vocabulary), or (n, vocabulary), before any softmax or after a log
            softmax.
        labels: The token that comes next at each position, shape (n, tokens) or (n,).
        ignore: Label of positions that do not count; negative ones never do.

    Returns:
        Shape (n,).

    Raises:
        DataError: If shapes or labels do not fit, or a sample has no label that counts.
    """
    return np.array(
        [_sample(np.asarray(row), label, ignore) for row, label in zip(outputs[0], labels, strict=True)], np.float64
    )


def _sample(row: Array, label: Array, ignore: int) -> float:
    if row.shape[:-1] != np.shape(label) or row.ndim == 0:
        lengths = "".join(f"{size}, " for size in np.shape(label))
        raise DataError(
            f"a sample's output of shape {row.shape} does not fit its labels of shape {np.shape(label)}: expected "
            f"scores ({lengths}vocabulary)",
            "bring the next token of each position; fill up with -100 where none is asked for",
        )
    numbers, counted = label_classes(label, row.shape[-1], ignore)
    if not counted.any():
        raise DataError(f"a sample has no label that counts: all are negative or {ignore}", "leave that sample out")
    scores = row[counted].astype(np.float64)
    top = scores.max(axis=-1, keepdims=True)
    total = np.log(np.exp(scores - top).sum(axis=-1)) + top[..., 0]
    own = np.take_along_axis(scores, numbers[counted][..., None], axis=-1)[..., 0]
    return float((total - own).mean())
