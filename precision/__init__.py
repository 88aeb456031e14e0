"""The vocabulary: precisions, choices, recipes, configs, budgets, measurements, workloads, errors. Frozen values."""

from bitfront.precision.batching import Batching
from bitfront.precision.budget import BYTES_PER_MB, Budget
from bitfront.precision.choice import FP16, FP32, LayerChoice, Precision, Rounding
from bitfront.precision.config import CalibrationSettings, PrecisionConfig, RangeMethod
from bitfront.precision.errors import (
    BackendError,
    BackendUnavailableError,
    ConfigError,
    DataError,
    EngineError,
    LoweringError,
    MalformedError,
    ModelError,
    OutputError,
    UsageError,
    WorkloadError,
)
from bitfront.precision.files import sweep_parts, unwritable, write_bytes, write_text
from bitfront.precision.measurement import AccuracyStats, Footprint, LatencyStats
from bitfront.precision.recipe import Recipe, RecipeStep
from bitfront.precision.store import ContentStore, digest
from bitfront.precision.workload import Array, Inputs, Labelled, Metric, OutputsRead, Workload, outputs_read, top1

__all__ = [
    "BYTES_PER_MB",
    "FP16",
    "FP32",
    "AccuracyStats",
    "Array",
    "BackendError",
    "BackendUnavailableError",
    "Batching",
    "Budget",
    "CalibrationSettings",
    "ConfigError",
    "ContentStore",
    "DataError",
    "EngineError",
    "Footprint",
    "Inputs",
    "Labelled",
    "LatencyStats",
    "LayerChoice",
    "LoweringError",
    "MalformedError",
    "Metric",
    "ModelError",
    "OutputError",
    "OutputsRead",
    "Precision",
    "PrecisionConfig",
    "RangeMethod",
    "Recipe",
    "RecipeStep",
    "Rounding",
    "UsageError",
    "Workload",
    "WorkloadError",
    "digest",
    "outputs_read",
    "sweep_parts",
    "top1",
    "unwritable",
    "write_bytes",
    "write_text",
]
