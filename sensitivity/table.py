"""The sensitivity table: one row per (group, scheme), in two contexts, with the cleaned loss a search uses.

    single_layer   the scheme in one group, everything else FP32: divergence from the FP32 outputs; ``alone`` in the CSV
    leave_one_out  the scheme in one group, everything else at its lowest precision: divergence from the FP32 outputs,
                   minus that of FP32 in this group there (how much of the all-low network's damage it keeps);
                   a small difference of two large numbers, so with a standard error over the samples; ``restored``
                   in the CSV
    loss           the non-negative score, made monotone in precision, that seeds and solver add up

Divergences (``sensitivity.divergence``) are 0 for an unchanged output and grow with damage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from bitfront.core import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityRow:
    """A row of the sensitivity table: one (group, scheme).

    Attributes:
        group: Group's name.
        scheme: The scheme scored.
        single_layer, leave_one_out: As the module says; NaN where it could not be scored.
        leave_one_out_error: Standard error of ``leave_one_out`` over the samples; infinite where a single sample gives
            none.
        loss: Cleaned; NaN where the scheme is dropped.
        dropped: Why the scheme leaves the space; empty where it stays.
    """

    group: str
    scheme: Scheme
    single_layer: float
    leave_one_out: float
    loss: float
    leave_one_out_error: float = 0.0
    dropped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityTable:
    """The sensitivity table: all rows, in the network's order of groups.

    Attributes:
        divergence_metric: One metric per output, as ``choose_divergence_metric`` writes it.
        samples: Calibration samples each score was taken on.
        rows: ``fp32`` first within each group, with loss 0.
    """

    divergence_metric: str
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
        """The table as a data frame, a row each in the rows' order.

        Columns: group, choice (the scheme's text), alone, restored, restored_error, loss, dropped, measure.
        """
        return pd.DataFrame(
            [
                (
                    *(
                        row.group,
                        row.scheme.text,
                        row.single_layer,
                        row.leave_one_out,
                        row.leave_one_out_error,
                        row.loss,
                        row.dropped,
                    ),
                    self.divergence_metric,
                )
                for row in self.rows
            ],
            columns=["group", "choice", "alone", "restored", "restored_error", "loss", "dropped", "measure"],
        )
