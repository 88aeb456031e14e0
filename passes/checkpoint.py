"""Checkpoints of trainings, so that a killed run goes on in the middle.

A state is bytes; whoever makes the checkpoint chooses a name that holds for that training alone, such as a digest
of the module, the data and the options. A damaged state counts as none.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from bitfront.core import ContentStore

KIND = "training"


class Checkpoint(Protocol):
    """Slot for the state of one training."""

    def load(self) -> bytes | None:
        """Return the state that was saved last, or None."""

    def save(self, state: bytes) -> None:
        """Keep ``state``, in one step, instead of what was there."""


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """Checkpoint in a content store.

    Attributes:
        store: Where.
        key: Digest of all that the training depends on.
    """

    store: ContentStore
    key: str

    def load(self) -> bytes | None:
        """Return the state that was saved last in the store, or None."""
        arrays = self.store.get_arrays(KIND, self.key)
        return None if arrays is None or "state" not in arrays else arrays["state"].tobytes()

    def save(self, state: bytes) -> None:
        """Keep ``state`` in the store instead of what was there."""
        self.store.put_arrays(KIND, self.key, {"state": np.frombuffer(state, np.uint8)})


def pack(state: dict[str, Any]) -> bytes:
    """Tensors, numbers, text and containers of them as bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, Any] | None:
    """Return what ``pack`` packed, on the CPU; None where that is damaged. Nothing in it is executed."""
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, KeyError, pickle.UnpicklingError):
        return None
    return state if isinstance(state, dict) else None
