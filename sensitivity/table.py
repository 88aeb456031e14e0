"""The sensitivity table: one row per (group, scheme), in two contexts, with the cleaned loss a search uses.

    alone     the scheme in one group, everything else FP32: divergence from the FP32 outputs
    restored  the scheme in one group, everything else at its lowest precision: divergence from FP32 outputs,
              minus that of FP32 in this group there (how much of the all-low network's damage it keeps);
              a small difference of two large numbers, so with a standard error over the samples
    loss      the non-negative, cleaned score that seeds and solver add up

Divergences (``sensitivity.divergence``) are 0 for an unchanged output and grow with damage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from bitfront.core import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityRow:
    """One (group, scheme).

    Attributes:
        group: Group's name.
        scheme: The scheme scored.
        alone, restored: As the module says; NaN where it could not be scored.
        restored_error: Standard error of ``restored`` over the samples; infinite where a single sample gives none.
        loss: Cleaned; NaN where the scheme is dropped.
        dropped: Why the scheme leaves the space; empty where it stays.
    """

    group: str
    scheme: Scheme
    alone: float
    restored: float
    loss: float
    restored_error: float = 0.0
    dropped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityTable:
    """All rows, in the quantisable's order of groups.

    Attributes:
        measure: What each output's divergence is measured in, as ``sensitivity.measure`` writes it.
        samples: Calibration samples each score was taken on.
        rows: ``fp32`` first within each group, with loss 0.
    """

    measure: str
    samples: int
    rows: tuple[SensitivityRow, ...]

    def losses(self) -> Mapping[str, dict[Scheme, float]]:
        """Group → the schemes that stay → loss."""
        table: dict[str, dict[Scheme, float]] = {}
        for row in self.rows:
            if not row.dropped:
                table.setdefault(row.group, {})[row.scheme] = row.loss
        return table

    def frame(self) -> pd.DataFrame:
        """Columns group, scheme (text), alone, restored, restored_error, loss, dropped, measure; the rows' order."""
        return pd.DataFrame(
            [
                (
                    *(row.group, row.scheme.text, row.alone, row.restored, row.restored_error, row.loss, row.dropped),
                    self.measure,
                )
                for row in self.rows
            ],
            columns=["group", "choice", "alone", "restored", "restored_error", "loss", "dropped", "measure"],
        )
