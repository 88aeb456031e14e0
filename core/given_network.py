"""The network as it was given: what the latency, size and accuracy of every point are compared with.

What is searched is a normalised form of it, which may be larger, smaller, faster or slower than the file that a person
would otherwise deploy; a gain over that form alone would be no gain. The given network is a point of its own, called
``given``, where its FP32 form differs from it in a way that matters: in size by more than 1 %, in latency by more than
2 % in every timing and beyond its interval, in accuracy measurably on the same samples (where there are no scores a
sample: where the intervals are apart), or where the FP32 form's latency was not reproduced. Otherwise ``fp32`` stands
for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bitfront.core.document import JsonValue
from bitfront.core.measurement import AccuracyStats, LatencyStats, PairedDifference

GIVEN_ID = "given"
FP32_ID = "fp32"
AS_GIVEN = "the file as given"
SIZE_APART = 0.01
LATENCY_APART = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenNetwork(JsonValue):
    """Size, latency and accuracy of the given network.

    Attributes:
        size_bytes: Size of its file.
        latency, accuracy: From a fresh process, on held-out data; None where not measured.
        search_latency, search_accuracy: As the search saw them; None where not measured.
        refused: Why the backend does not run the file as given, in which case all of this is about its FP32 form;
            empty otherwise.
    """

    size_bytes: Annotated[int, Field(ge=1, le=2**63 - 1)]
    latency: LatencyStats | None = None
    search_latency: LatencyStats | None = None
    accuracy: AccuracyStats | None = None
    search_accuracy: AccuracyStats | None = None
    refused: str = ""

    @property
    def shown_accuracy(self) -> AccuracyStats | None:
        """The accuracy on held-out data, else the search's."""
        return self.accuracy or self.search_accuracy


def differs(
    given: GivenNetwork, fp32: GivenNetwork, *, latency_reproduced: bool | None, change: PairedDifference | None = None
) -> bool:
    """Whether the FP32 form differs from the given network so that both are to be shown.

    Args:
        given: The network as given.
        fp32: Its FP32 form, measured beside it.
        latency_reproduced: Whether a fresh process measured the same latency of the FP32 form; None where none did.
        change: Its accuracy minus the given network's on the same samples; None where not known.
    """
    if latency_reproduced is False or abs(fp32.size_bytes - given.size_bytes) > SIZE_APART * given.size_bytes:
        return True
    timings = [stats for stats in (fp32.search_latency, fp32.latency) if stats is not None]
    slower = [stats.ratio_low > 1 and stats.ratio > 1 + LATENCY_APART for stats in timings]
    faster = [stats.ratio_high < 1 and stats.ratio < 1 - LATENCY_APART for stats in timings]
    if timings and (all(slower) or all(faster)):
        return True
    if change is not None:
        return change.measurable
    mine, other = given.shown_accuracy, fp32.shown_accuracy
    return mine is not None and other is not None and (mine.ci_low > other.ci_high or other.ci_low > mine.ci_high)
