"""Scores of one group's schemes from the energies of their errors and a few that were carried to the outputs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bitfront.core import Array, Scheme
from bitfront.sensitivity.whole_network import Scores

_FAR = 8.0  # a second probe's energy is that much below the first's
_SLOPES = (0.5, 1.5)


@dataclass(slots=True, kw_only=True)
class GroupScores:
    """Scores of one group.

    Attributes:
        energies: Scheme → sum of its squared errors; FP32's is 0.
        probes: Scheme whose error was carried to the outputs → divergence of each sample, (n,).
        corrected: Schemes whose mean error a corrected bias takes away.
        refused: Scheme → why it leaves the space.
        leave_one_out: Scheme → leave-one-out score and its standard error.
    """

    energies: dict[Scheme, float] = field(default_factory=dict)
    probes: dict[Scheme, Scores] = field(default_factory=dict)
    corrected: frozenset[Scheme] = frozenset()
    refused: dict[Scheme, str] = field(default_factory=dict)
    leave_one_out: dict[Scheme, tuple[float, float]] = field(default_factory=dict)

    def add(self, kept: Mapping[str, Array]) -> None:
        """Add what ``_Propagation.measure`` found on a block of samples."""
        schemes = [Scheme.parse(str(text)) for text in kept["schemes"]]
        for scheme, energy, reason in zip(schemes, kept["energies"], kept["refused"], strict=True):
            if reason:
                self.refused[scheme] = str(reason)
            else:
                self.energies[scheme] = self.energies.get(scheme, 0.0) + float(energy)
        for text, values in zip(kept["probes"], kept["divergences"], strict=True):
            scheme = Scheme.parse(str(text))
            before = self.probes.get(scheme)
            self.probes[scheme] = values if before is None else np.concatenate([before, values])

    def single_layer(self) -> dict[Scheme, float]:
        """Scheme → mean divergence with everything else in FP32; not a number where an error is none."""
        known = {scheme: (self.energies[scheme], float(values.mean())) for scheme, values in self.probes.items()}
        found = {}
        for scheme, energy in self.energies.items():
            if scheme in self.refused:
                continue  # some samples ran
            alike = {
                each: pair for each, pair in known.items() if (each in self.corrected) == (scheme in self.corrected)
            }
            found[scheme] = known[scheme][1] if scheme in known else _carried(energy, list((alike or known).values()))
        return found


def choose_probes(energies: Mapping[Scheme, float], corrected: Collection[Scheme]) -> list[Scheme]:
    """The scheme of the largest finite error, one far below it, the largest corrected one; all that are not finite."""
    finite = sorted((s for s, e in energies.items() if 0 < e < math.inf), key=lambda s: (-energies[s], s.text))
    plain = [scheme for scheme in finite if scheme not in corrected]
    far = [scheme for scheme in plain if energies[scheme] * _FAR <= energies[plain[0]]]
    others = [scheme for scheme in finite if scheme in corrected]
    infinite = [scheme for scheme, energy in energies.items() if not math.isfinite(energy)]
    return [*plain[:1], *far[:1], *others[:1], *infinite]


def _carried(energy: float, known: Sequence[tuple[float, float]]) -> float:
    """Divergence that an energy comes to, by the (energy, divergence) that are known."""
    usable = sorted(pair for pair in known if 0 < pair[0] < math.inf and 0 < pair[1] < math.inf)
    if energy == 0 or not usable:
        return 0.0
    slope = 1.0
    if len(usable) > 1:
        (low, less), (high, more) = usable[0], usable[-1]
        slope = min(max(math.log(more / less) / math.log(high / low), _SLOPES[0]), _SLOPES[1])
    base, value = min(usable, key=lambda pair: abs(math.log(pair[0] / energy)))
    # Below what was probed errors are small, and divergence is their square.
    return float(value * (energy / base) ** (slope if energy >= usable[0][0] else 1.0))
