"""The form of ``backends.json``: a run on several backends, and what became of each config on the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from bitfront.core.document import Form, JsonValue
from bitfront.core.errors import DataError, UsageError
from bitfront.core.measurement_file import DAMAGED

BACKENDS_FILE = "backends.json"
SCHEMA_VERSION = 1
_FOLDER = r"^[A-Za-z0-9_-]+$"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendEntry(JsonValue):
    """Backend of a run on several: its name as asked for, and its folder in the run's."""

    name: str
    folder: Annotated[str, Field(pattern=_FOLDER)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEvaluation(JsonValue):
    """Result of measuring a backend's config on another: the point that stands for it there, or the reason for none."""

    source: str
    id: str
    target: str
    point: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendsFile(JsonValue):
    """A run on several backends: which there are, and what became of each config on the others."""

    schema_version: Literal[1]
    name: str
    command: str
    backends: Annotated[tuple[BackendEntry, ...], Field(min_length=1)]
    exchange: tuple[CrossEvaluation, ...]


BACKENDS_FORM = Form(
    kind=BackendsFile,
    name="backends",
    version=SCHEMA_VERSION,
    problem="is damaged",
    hint=DAMAGED,
    failure=DataError,
    version_hint="render the report with the version of this program that ran the search",
    version_failure=UsageError,
)
