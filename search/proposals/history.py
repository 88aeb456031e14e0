"""History of a study, read back from its trials: the only memory the sampler has.

Because nothing else is remembered, a resumed study continues exactly where it stood. A recorded trial has the
space's params (those of prune variables may be missing: not pruned) and the user attributes ``ratio``, ``ratio_low``,
``ratio_high`` (these may be missing), ``retimed`` (earlier trials' later latencies; may be missing), ``latency_ms``,
``size_bytes``, ``accuracy`` and ``accuracy_error`` (may be missing) and ``state`` (``complete``, ``over budget``,
``stopped``, ``timed``, ``failed``; a ``timed`` one was built for its cost alone).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from bitfront.core.measurement import INTERVAL_DEVIATIONS
from bitfront.search.policy.config import DEFAULTS
from bitfront.search.proposals.file_overhead import FileOverhead, fit_file_overhead
from bitfront.search.space.pruning import PREFIX
from bitfront.search.space.space import Encoding, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Measurement of one trial, as the models learn from it.

    Attributes:
        encoding: What was tried; an encoding is tried again where its network was trained on.
        ratio: Measured latency over the given network's, as it was timed last; NaN where it was not timed.
        latency_ms: Measured latency; NaN where it was not timed.
        size_bytes: The artifact's size; NaN where it was not built.
        accuracy: Its accuracy; NaN where it was not scored.
        complete: Whether the accuracy is final, not that of a trial stopped early.
        error: Standard error of the accuracy's difference to the given network's; NaN where it is not known.
        ratio_deviation: Standard deviation of ``ratio`` by its interval; NaN where that is not known.
    """

    encoding: Encoding
    ratio: float
    latency_ms: float
    size_bytes: float
    accuracy: float
    complete: bool
    error: float = math.nan
    ratio_deviation: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All trials of a study that belong to the space.

    Attributes:
        observations: Finished trials, in the study's order.
        tried: What finished, runs or waits in the queue.
    """

    observations: tuple[Observation, ...]
    tried: frozenset[Encoding]

    @classmethod
    def of(cls, space: Space, study: Study) -> History:
        """Read a study; trials of another space are passed over."""
        observations, tried = [], set()
        texts, trials = _Texts.of(space), study.get_trials(deepcopy=False)
        later = {number: latency for trial in trials for number, latency in trial.user_attrs.get("retimed", {}).items()}
        for trial in trials:
            encoding = texts.encoding({**trial.system_attrs.get("fixed_params", {}), **trial.params})
            if encoding is None:
                continue
            tried.add(encoding)
            if trial.state.is_finished():
                observations.append(_observation(encoding, trial, later.get(str(trial.number), trial.user_attrs)))
        return cls(observations=tuple(observations), tried=frozenset(tried))

    @property
    def reference_ms(self) -> float:
        """The given network's latency in milliseconds; NaN before anything was timed."""
        found = [r.latency_ms / r.ratio for r in self.observations if r.ratio > 0 and math.isfinite(r.latency_ms)]
        return median(found) if found else math.nan

    def overhead(self, space: Space, pull: float = DEFAULTS.sampler.surrogate.file_overhead_pull) -> FileOverhead:
        """Model of the bytes that files hold besides the groups' weights; zeros before any was built."""
        built = [seen for seen in self.observations if math.isfinite(seen.size_bytes)]
        return fit_file_overhead(space, [seen.encoding for seen in built], [seen.size_bytes for seen in built], pull)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Texts:
    """Reads params as indices: name → text → index, of the groups and of the prune variables."""

    space: Space
    groups: Mapping[str, Mapping[str, int]]
    prunes: Mapping[str, Mapping[str, int]]

    @classmethod
    def of(cls, space: Space) -> _Texts:
        return cls(
            space=space,
            groups={group.name: {c.text: i for i, c in enumerate(group.schemes)} for group in space.groups},
            prunes={prune.param: {text: i for i, text in enumerate(prune.texts)} for prune in space.prunes},
        )

    def encoding(self, params: Mapping[str, Any]) -> Encoding | None:
        """Encoding that a trial's params stand for; None while they are being drawn, or if they are another space's."""
        pruned = [name for name, text in params.items() if name.startswith(PREFIX) and text != "0"]
        if not all(name in self.prunes for name in pruned):
            return None
        schemes = [indices.get(params.get(name, "")) for name, indices in self.groups.items()]
        levels = [indices.get(params.get(name, "0")) for name, indices in self.prunes.items()]
        encoding = [index for index in (*schemes, *levels) if index is not None]
        return self.space.canonical(tuple(encoding)) if len(encoding) == len(schemes) + len(levels) else None


def _observation(encoding: Encoding, trial: FrozenTrial, timed: Mapping[str, Any]) -> Observation:
    """Read what a trial found; ``timed`` has its ratio and the ratio's interval as they were found last."""
    ratio, first = _number(timed, "ratio"), _number(trial.user_attrs, "ratio")
    return Observation(
        encoding=encoding,
        ratio=ratio,
        latency_ms=_number(trial.user_attrs, "latency_ms") * (1.0 if ratio == first else ratio / first),
        size_bytes=_number(trial.user_attrs, "size_bytes"),
        accuracy=_number(trial.user_attrs, "accuracy"),
        complete=trial.user_attrs.get("state") == "complete",
        error=_number(trial.user_attrs, "accuracy_error"),
        ratio_deviation=(_number(timed, "ratio_high") - _number(timed, "ratio_low")) / (2 * INTERVAL_DEVIATIONS),
    )


def _number(attributes: Mapping[str, Any], key: str) -> float:
    value = attributes.get(key)
    return float(value) if isinstance(value, int | float) else math.nan
