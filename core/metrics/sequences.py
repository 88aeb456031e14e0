"""Error rates of sequences that a network writes: greedy CTC decoding (Graves et al., 2006), then edit distance.

    rate = Σ edits / Σ reference length, over all samples; edits are insertions, deletions and substitutions

Greedy decoding takes the largest score of each step, joins what repeats and leaves out blanks. A ``cer`` counts tokens
as characters, a ``wer`` the words between separator tokens. No language model, no beam.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from bitfront.core.errors import DataError, UsageError
from bitfront.core.metric import Array
from bitfront.core.metrics.class_numbers import whole_numbers

BLANK = 0


def character_error_rate(outputs: tuple[Array, ...], labels: Array, *, blank: int = BLANK) -> float:
    """Edits over reference tokens.

    Args:
        outputs: The first has scores (n, steps, tokens), or token numbers (n, length) as integers, decoded already.
        labels: Token numbers, shape (n, length), filled up with negative ones or blanks.
        blank: The token that means none.

    Raises:
        DataError: If shapes do not fit, or no label holds a token.
    """
    return _error_rate([(hypothesis, reference) for hypothesis, reference in _decoded(outputs, labels, blank)])


def word_error_rate(
    outputs: tuple[Array, ...], labels: Array, *, blank: int = BLANK, separator: int | None = None
) -> float:
    """Edits over reference words; arguments as for ``character_error_rate``.

    Args:
        outputs: As there.
        labels: As there.
        blank: As there.
        separator: The token between words.

    Raises:
        UsageError: If no separator is named.
        DataError: If shapes do not fit, or no label holds a word.
    """
    if separator is None:
        raise UsageError(
            "--metric wer: the token between words is not known",
            "name it, as in --metric wer:separator=4; or count tokens with --metric cer",
        )
    return _error_rate(
        [
            (_words(hypothesis, separator), _words(reference, separator))
            for hypothesis, reference in _decoded(outputs, labels, blank)
        ]
    )


def greedy_ctc(scores: Array, blank: int) -> list[int]:
    """Tokens of one sample's scores, shape (steps, tokens)."""
    best = scores.argmax(axis=-1)
    changed = np.ones(len(best), np.bool_)
    changed[1:] = best[1:] != best[:-1]
    return [int(token) for token in best[changed & (best != blank)]]


def edit_distance(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Insertions, deletions and substitutions that lead from one sequence to the other, as few as possible.

    A row of the table at once: an insertion is a running minimum (``cost[j] = min(cost[i] + j − i)`` for i ≤ j).
    """
    numbers = {item: index for index, item in enumerate(dict.fromkeys((*one, *other)))}
    wanted = np.array([numbers[item] for item in other], np.int64)
    places = np.arange(len(wanted) + 1)
    row = places.copy()
    for item in one:
        kept = row[:-1] + (wanted != numbers[item])
        row = np.concatenate(([row[0] + 1], np.minimum(row[1:] + 1, kept)))
        row = np.minimum.accumulate(row - places) + places
    return int(row[-1])


def _decoded(outputs: tuple[Array, ...], labels: Array, blank: int) -> list[tuple[list[int], list[int]]]:
    """(Hypothesis, reference) of each sample."""
    pairs = []
    for row, label in zip(outputs[0], labels, strict=True):
        array = np.asarray(row)
        if np.ndim(label) != 1:
            raise DataError(
                f"a sample's label has shape {np.shape(label)}, expected token numbers (length,)",
                "fill shorter ones up with -1",
            )
        if array.dtype.kind == "f" and array.ndim == 2:
            if not 0 <= blank < array.shape[1]:
                raise DataError(
                    f"blank={blank} is none of the output's {array.shape[1]} tokens", "name another blank=NUMBER"
                )
            tokens = greedy_ctc(array, blank)
        elif array.dtype.kind in "iu" and array.ndim == 1:
            tokens = [int(token) for token in array if token >= 0 and token != blank]
        else:
            raise DataError(
                f"a sample's output of shape {array.shape} and dtype {array.dtype.name} is no sequence: expected "
                "scores (steps, tokens), or token numbers (length,) as integers",
                "name the output that holds it, as in --metric cer:OUTPUT",
            )
        pairs.append((tokens, [int(token) for token in whole_numbers(label) if token >= 0 and token != blank]))
    return pairs


def _words(tokens: Sequence[int], separator: int) -> list[tuple[int, ...]]:
    words: list[list[int]] = [[]]
    for token in tokens:
        if token == separator:
            words.append([])
        else:
            words[-1].append(token)
    return [tuple(word) for word in words if word]


def _error_rate(pairs: Sequence[tuple[Sequence[Hashable], Sequence[Hashable]]]) -> float:
    length = sum(len(reference) for _, reference in pairs)
    if not length:
        raise DataError("no label holds a token", "bring token numbers; negative ones and blanks do not count")
    return sum(edit_distance(reference, hypothesis) for hypothesis, reference in pairs) / length
