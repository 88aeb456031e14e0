"""Outputs of the given network on evaluation samples: what metrics without labels compare with.

They are computed once, on the run's own backend and in the same batches as those that are compared with them, and kept
with the run's measurements.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bitfront.backends.base import CompiledModel
from bitfront.core import Array, ContentStore, digest
from bitfront.core.ragged import is_ragged, ragged

KIND = "given-outputs"  # its name in the cache


class GivenOutputs:
    """The given network's outputs on one part of the evaluation data, by stages of scoring.

    Args:
        compile_: Compiles the given network for scoring; called when first needed, and not where all is in the store.
        store: Where outputs are kept.
        key: Everything they depend on besides the samples' places.
    """

    def __init__(self, compile_: Callable[[], CompiledModel], store: ContentStore, key: str) -> None:
        self._compile = compile_
        self._store = store
        self._key = key
        self._compiled: CompiledModel | None = None
        self._known: dict[tuple[int, int], tuple[Array, ...]] = {}

    def of(
        self, start: int, stop: int, total: int, run: Callable[[CompiledModel], tuple[Array, ...]]
    ) -> tuple[Array, ...]:
        """Outputs of samples ``start`` to ``stop``, shape (n, …) each, or (n,) of each sample's own.

        Args:
            start: The first sample.
            stop: The one behind the last.
            total: Number of samples; behind the last one the compiled network is no longer kept.
            run: Runs a network on these samples.

        Raises:
            BackendError: If the given network fails.
        """
        place = (start, stop)
        if place not in self._known:
            key = digest(self._key, start, stop)
            stored = self._store.get_arrays(KIND, key)
            if stored is None:
                self._compiled = self._compiled or self._compile()
                self._known[place] = run(self._compiled)
                self._store.put_arrays(KIND, key, _packed(self._known[place]))
            else:
                self._known[place] = _unpacked(stored)
            if stop == total:
                self._compiled = None
        return self._known[place]


def _packed(outputs: tuple[Array, ...]) -> dict[str, Array]:
    """Arrays by name, ``OUTPUT`` or, of samples of different shapes, ``OUTPUT-SAMPLE``."""
    packed: dict[str, Array] = {"outputs": np.asarray(len(outputs))}
    for index, output in enumerate(outputs):
        if is_ragged(output):
            packed |= {f"{index}-{place}": np.asarray(sample) for place, sample in enumerate(output)}
        else:
            packed[f"{index}"] = output
    return packed


def _unpacked(packed: dict[str, Array]) -> tuple[Array, ...]:
    found = []
    for index in range(int(packed["outputs"])):
        whole = packed.get(f"{index}")
        if whole is None:
            count = sum(name.startswith(f"{index}-") for name in packed)
            whole = ragged([packed[f"{index}-{place}"] for place in range(count)])
        found.append(whole)
    return tuple(found)
