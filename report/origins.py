"""Words for the origins and states of ``trials.csv``; one that is not listed is shown as it is written."""

from __future__ import annotations

_ORIGINS = {
    "ladder": "greedy seed",
    "split": "contiguous segments",
    "cost": "latency probe",
    "one-shot": "untrained variant",
    "trained": "variant trained further",
    "qat": "quantisation-aware training",
    "recovered": "fine-tuned variant",
    "exchange": "from another backend",
}
_STATES = {
    "over budget": "over a limit",
    "stopped": "stopped early",
    "timed": "latency probe",
    "repeated": "duplicate",
}


def origin_text(origin: str) -> str:
    """Words for the origin of a trial."""
    return _ORIGINS.get(origin, origin)


def state_text(state: str) -> str:
    """Words for the end of a trial."""
    return _STATES.get(state, state)
