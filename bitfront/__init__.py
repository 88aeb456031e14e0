"""Per-layer mixed-precision search under measured latency, size and accuracy budgets: the names a program needs.

``bitfront.search``, ``bitfront.lowering`` and the other rooms are importable as they stand in ``ARCHITECTURE.md``;
what is named here is what somebody who brings a workload, a metric or a config works with. It is imported when first
asked for: the command line has to handle an interruption before numpy is loaded.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitfront.core import (
        ConfigError,
        Constraints,
        DataError,
        EngineError,
        Labelled,
        Metric,
        ModelError,
        Precision,
        PrecisionConfig,
        Scheme,
        UsageError,
        Workload,
        WorkloadError,
        top1,
    )

try:
    __version__ = version("bitfront")
except PackageNotFoundError:  # a copy of the folders that was never installed
    __version__ = "0+unknown"

__all__ = [
    "ConfigError",
    "Constraints",
    "DataError",
    "EngineError",
    "Labelled",
    "Metric",
    "ModelError",
    "Precision",
    "PrecisionConfig",
    "Scheme",
    "UsageError",
    "Workload",
    "WorkloadError",
    "__version__",
    "top1",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'bitfront' has no attribute '{name}'")
    return getattr(import_module("bitfront.core"), name)
