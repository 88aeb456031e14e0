"""The form of ``measurement.json``: what a run measured and decided, as it is written and read.

``TRIAL_COLUMNS``, ``SCORE_COLUMNS`` and ``SPARSITY_COLUMNS`` are those of the tables beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NotRequired

from pydantic import ConfigDict
from typing_extensions import TypedDict

from bitfront.core.constraints import Constraints
from bitfront.core.document import Count, Form, JsonValue, NonNegative
from bitfront.core.errors import DataError, UsageError
from bitfront.core.given_network import GivenNetwork
from bitfront.core.metric import ComparedWith, Direction
from bitfront.core.point import Point
from bitfront.core.preference import Choice
from bitfront.core.training_info import TrainInfo

SCHEMA_VERSION = 1
DAMAGED = "restore the file, or move it away and run the search again with --resume to have it written anew"

TRIAL_COLUMNS = (
    "number", "origin", "state", "size_bytes", "latency_ms", "latency_p90_ms", "ratio", "accuracy", "accuracy_samples",
    "seconds", "reason", "choices",
)  # fmt: skip
# Which runs of before do not have.
LATER_TRIAL_COLUMNS = (
    "network", "pruning", "accuracy_change", "accuracy_change_ci_low", "accuracy_change_ci_high", "samples_better",
    "samples_worse",
)  # fmt: skip
SCORE_COLUMNS = ("group", "choice", "alone", "restored", "loss", "dropped")
SPARSITY_COLUMNS = ("group", "sparsity", "kept", "channels", "loss", "dropped")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedLayer(JsonValue):
    """Layer of the network: its name, operator, number of weights, and the group it was decided in."""

    name: str
    op: str
    parameters: Count
    group: str


class Settings(TypedDict):
    """Options of a run: shown as written, so there may be more; what is interpreted has its type."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)  # type: ignore[misc]

    metric: str
    metric_direction: NotRequired[Direction]
    metric_unit: NotRequired[str]
    metric_compared_with: NotRequired[ComparedWith]
    metric_detail: NotRequired[str]
    threads: Count
    batch_size: Count
    holdout_samples: Count
    search_samples: Count
    withheld: NotRequired[dict[str, str]]
    data: NotRequired[dict[str, dict[str, str]]]


class Device(TypedDict):
    """Device of a run: one entry a property, shown as written."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)  # type: ignore[misc]

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart(JsonValue):
    """The network of a run."""

    source: str
    fingerprint: str
    parameters: Count
    layers: tuple[ReportedLayer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPart(JsonValue):
    """The runtime of a run."""

    name: str
    dialect: str
    device: Device


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementFile(JsonValue):
    """Everything a run measured, and what it decided from that."""

    schema_version: Literal[1]
    name: str
    created: str
    model: ModelPart
    backend: BackendPart
    settings: Settings
    budget: Constraints
    complete: bool
    stopped: str | None
    reference: str
    baselines: tuple[str, ...]
    front: tuple[str, ...]
    recommended: str | None
    nearest: dict[str, str]
    points: dict[str, Point]
    time_split_s: dict[str, NonNegative]
    train: TrainInfo | None = None
    given: GivenNetwork | None = None
    only_fp32: tuple[str, ...] = ()
    choice: Choice | None = None


MEASUREMENT_FILE = "measurement.json"
MEASUREMENT_FORM = Form(
    kind=MeasurementFile,
    name="measurement",
    version=SCHEMA_VERSION,
    problem="is damaged",
    hint=DAMAGED,
    failure=DataError,
    version_hint="render the report with the version of this program that ran the search",
    version_failure=UsageError,
)
