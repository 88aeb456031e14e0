"""The error tree: everything a person can cause and should read, never a traceback.

Each error carries a ``message`` (what was found, where, and what was expected) and a ``hint`` (what to do).
The command line prints both and exits with 2. ``assert`` is kept for our own invariants.

    EngineError
    ├── UsageError           an option or a combination of options
    ├── ModelError           a network file or module that cannot be used
    ├── DataError            calibration or evaluation arrays
    ├── WorkloadError        a ``module:attribute`` workload or metric
    ├── ConfigError          a precision config that is malformed or belongs to another network
    │   └── MalformedError    JSON or text that is not of the form asked for (a ValueError too)
    ├── LoweringError        a scheme that cannot be written for a layer
    ├── BackendError         a runtime that refused or failed
    │   └── BackendUnavailableError   a runtime that is not installed or cannot start
    └── OutputError          a result that cannot be written
"""


class EngineError(Exception):
    """Root of the error tree: anything a person can mend.

    Args:
        message: What happened; names the file, layer or option, what was expected and what came.
        hint: What the reader can do about it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(EngineError):
    """An option, or a combination of options, that makes no sense."""


class ModelError(EngineError):
    """A network file or module that cannot be read, exported or used."""


class DataError(EngineError):
    """Calibration or evaluation arrays that do not fit the network or the metric."""


class WorkloadError(EngineError):
    """A workload or metric named by ``module:attribute`` that cannot be used."""


class ConfigError(EngineError):
    """A precision config that is malformed or was written for another network."""


class MalformedError(ConfigError, ValueError):
    """JSON or text that is not of the form asked for; the caller that knows the file adds its name."""


class LoweringError(EngineError):
    """A scheme that cannot be written for a layer in the dialect asked for."""


class BackendError(EngineError):
    """A runtime that refused or failed on a model."""


class BackendUnavailableError(BackendError):
    """A runtime that is not installed, or that cannot start on this machine."""


class OutputError(EngineError):
    """A result that cannot be written: a folder without permission, a full disk."""
