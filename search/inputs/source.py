"""The source of model and data on the command line: files, or a Python object; never both.

Files are ``--model``, ``--calib``, ``--eval``, ``--data-options`` and ``--metric``; an object is ``--workload`` with
``--data``. Loading them is ``loading``'s work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitfront.core import DataError, ModelError, UsageError
from bitfront.core.files import check_readable
from bitfront.search.inputs.data.random_data import RANDOM, RANDOM_WARNING
from bitfront.search.inputs.data.registry import check_data


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The options that name model and data, validated in combination.

    Attributes:
        model: ONNX file.
        calibration, evaluation: A path, ``NAME=FILE.npy,…`` or, for calibration, ``random``.
        data_options: (key, value) of how the two are read.
        metric: A built-in metric as ``core.metric_spec`` has it, or ``module:function``; None is ``top1``, and
            ``agreement`` where there are no labels.
        workload: ``module:attribute``; None without a model is the embedded demo.
        data: Folder for a callable workload.
        state: (output, input that it feeds at the next step) where samples are sequences.
        batch_axes: (input or output, axis that counts its samples, None for none) where a person says it.
    """

    model: Path | None = None
    calibration: str | None = None
    evaluation: str | None = None
    data_options: tuple[tuple[str, str], ...] = ()
    metric: str | None = None
    workload: str | None = None
    data: Path | None = None
    batch_axes: tuple[tuple[str, int | None], ...] = ()
    state: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.model is not None and (self.workload is not None or self.data is not None):
            option = "--workload" if self.workload is not None else "--data"
            raise UsageError(f"{option} cannot be combined with --model", "name the network one way only")
        if self.model is None:
            for option, value in (
                ("--calib", self.calibration),
                ("--eval", self.evaluation),
                ("--data-options", self.data_options or None),
                ("--metric", self.metric),
            ):
                if value is not None:
                    raise UsageError(f"{option} needs --model", "a workload brings its own data and metric")
        if self.data is not None and not self.data.is_dir():
            raise DataError(f"--data: '{self.data}' is no folder", "name the folder that the workload reads")

    @property
    def notices(self) -> tuple[str, ...]:
        """Warnings about the data: that calibration inputs are random numbers."""
        return (RANDOM_WARNING,) if self.calibration == RANDOM else ()

    def check_files(self) -> None:
        """Refuse files that cannot be read at all, before anything is loaded.

        Raises:
            ModelError: If there is no readable model file.
            DataError: If there is no readable file of inputs.
            UsageError: If a data option means nothing to them, or a library that reads them is missing.
        """
        if self.model is not None:
            check_readable(self.model, ModelError, "an ONNX file", option="--model")
        specs = {"--calib": self.calibration, "--eval": self.evaluation}
        check_data(specs, self.data_options, sequences=bool(self.state))
