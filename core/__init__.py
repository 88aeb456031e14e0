"""The engine's vocabulary as frozen values: schemes, configs, recipes, constraints, measurements, workloads, errors."""

from bitfront.core.artifact import Artifact
from bitfront.core.batching import Batching
from bitfront.core.builtin_metrics import METRICS, top1
from bitfront.core.config import CalibrationSettings, PrecisionConfig, RangeMethod
from bitfront.core.constraints import BYTES_PER_MB, Constraints, Limit, LimitCheck
from bitfront.core.errors import (
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
from bitfront.core.files import sweep_parts, unwritable, write_bytes, write_text
from bitfront.core.measurement import AccuracyStats, LatencyStats, MemoryUsage, PairedDifference
from bitfront.core.metric import Array, Direction, Metric, MetricFunction, MetricInfo, OutputsRead, as_metric
from bitfront.core.preference import Prefer, Preference
from bitfront.core.quantisation import ActivationMode, ActivationScheme, Granularity, Precision, WeightScheme
from bitfront.core.recipe import Recipe, RecipeStep
from bitfront.core.scheme import FP16, FP32, SCHEMES, Scheme
from bitfront.core.store import ContentStore, digest
from bitfront.core.workload import Inputs, Labelled, Workload

__all__ = [
    "BYTES_PER_MB",
    "FP16",
    "FP32",
    "METRICS",
    "SCHEMES",
    "AccuracyStats",
    "ActivationMode",
    "ActivationScheme",
    "Array",
    "Artifact",
    "BackendError",
    "BackendUnavailableError",
    "Batching",
    "CalibrationSettings",
    "ConfigError",
    "Constraints",
    "ContentStore",
    "DataError",
    "Direction",
    "EngineError",
    "Granularity",
    "Inputs",
    "Labelled",
    "LatencyStats",
    "Limit",
    "LimitCheck",
    "LoweringError",
    "MalformedError",
    "MemoryUsage",
    "Metric",
    "MetricFunction",
    "MetricInfo",
    "ModelError",
    "OutputError",
    "OutputsRead",
    "PairedDifference",
    "Precision",
    "PrecisionConfig",
    "Prefer",
    "Preference",
    "RangeMethod",
    "Recipe",
    "RecipeStep",
    "Scheme",
    "UsageError",
    "WeightScheme",
    "Workload",
    "WorkloadError",
    "as_metric",
    "digest",
    "sweep_parts",
    "top1",
    "unwritable",
    "write_bytes",
    "write_text",
]
