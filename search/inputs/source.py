"""The source of model and data on the command line: files, or a Python object; never both.

Files are ``--model``, ``--calib``, ``--eval`` and ``--metric``; an object is ``--workload`` with ``--data``. Loading
them is ``loading``'s work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitfront.core import DataError, ModelError, UsageError
from bitfront.core.files import check_readable


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The options that name model and data, validated in combination.

    Attributes:
        model: ONNX file.
        calibration, evaluation: ``.npz`` files.
        metric: Built-in name or ``module:function``; None is ``top1``.
        workload: ``module:attribute``; None without a model is the embedded demo.
        data: Folder for a callable workload.
    """

    model: Path | None = None
    calibration: Path | None = None
    evaluation: Path | None = None
    metric: str | None = None
    workload: str | None = None
    data: Path | None = None

    def __post_init__(self) -> None:
        if self.model is not None and (self.workload is not None or self.data is not None):
            option = "--workload" if self.workload is not None else "--data"
            raise UsageError(f"{option} cannot be combined with --model", "name the network one way only")
        if self.model is None:
            for option, value in (
                ("--calib", self.calibration),
                ("--eval", self.evaluation),
                ("--metric", self.metric),
            ):
                if value is not None:
                    raise UsageError(f"{option} needs --model", "a workload brings its own data and metric")
        if self.data is not None and not self.data.is_dir():
            raise DataError(f"--data: '{self.data}' is no folder", "name the folder that the workload reads")

    def check_files(self) -> None:
        """Refuse files that cannot be read at all, before anything is loaded.

        Raises:
            ModelError: If there is no readable model file.
            DataError: If there is no readable file of inputs.
        """
        if self.model is not None:
            check_readable(self.model, ModelError, "an ONNX file", option="--model")
        for option, path in (("--calib", self.calibration), ("--eval", self.evaluation)):
            if path is not None:
                check_readable(path, DataError, "an .npz file", "write one with numpy.savez", option=option)
