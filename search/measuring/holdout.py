"""Split of the evaluation samples: a part for the search, and a held-out part for the final scores."""

from __future__ import annotations

import numpy as np

from bitfront.core import DataError, Labelled
from bitfront.core.batching import take_rows


def split_holdout(data: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """Split labelled data by a seeded permutation, so that an ordered data set splits evenly.

    Args:
        data: All of them, (n, …).
        share: Share of the samples that is held out, between 0 and 1.
        seed: The same seed gives the same split.

    Returns:
        The search's part and the held-out part; neither is empty.

    Raises:
        DataError: If there are fewer than two samples.
    """
    count = len(data)
    if count < 2:
        raise DataError(
            f"evaluation data: expected at least 2 samples, got {count}",
            "give one to search with and one to hold back at the very least",
        )
    held_out = min(max(round(count * share), 1), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    return _take(data, np.sort(order[held_out:]), seed), _take(data, np.sort(order[:held_out]), seed)


def _take(data: Labelled, rows: np.ndarray[tuple[int], np.dtype[np.int64]], seed: int) -> Labelled:
    # Shuffled again: scoring looks at the first samples first, and those have to be like the rest.
    rows = np.random.default_rng([seed, len(rows)]).permutation(rows)
    inputs = {name: take_rows(array, rows) for name, array in data.inputs.items()}
    return Labelled(inputs=inputs, labels=data.labels[rows])
