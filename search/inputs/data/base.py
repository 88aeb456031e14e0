"""The interface of loaders of data, the data they return, and the errors they share."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np
import psutil

from bitfront.core import Array, DataError, Inputs, Labelled, UsageError
from bitfront.search.inputs.arrays import MissingLabelsError, check_labels, check_names
from bitfront.search.inputs.data.options import LoaderOptions
from bitfront.search.inputs.layout.sequences import check_samples

if TYPE_CHECKING:
    from bitfront.lowering.reference import ReferenceModel

CALIB, EVAL = "--calib", "--eval"
SHUFFLE_SEED = 0
CALIBRATION_SAMPLES = 512
"""Samples read for calibration from what is stored sample by sample, unless ``samples`` says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """Data to read, and the network it is for.

    Attributes:
        spec: What the option was given: a path, ``NAME=FILE,…`` or ``random``.
        option: ``--calib`` or ``--eval``.
        options: What ``--data-options`` says to this loader.
        model: The ONNX file, beside which preprocessing files are looked for.
        reference: The network.
        labelled: Whether labels are needed.
        state: Output → the input that it feeds at the next step, where samples are sequences; empty where they are not.
    """

    spec: str
    option: str
    options: LoaderOptions
    model: Path
    reference: ReferenceModel
    labelled: bool = False
    state: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The start of every message: option and spec."""
        return f"{self.option}: '{self.spec}'"

    @property
    def most(self) -> int | None:
        """Samples to read at most; None for all."""
        return self.options.positive("samples") or (None if self.option == EVAL else CALIBRATION_SAMPLES)

    def only_input(self) -> str:
        """The network's one input, states apart, which has the samples on its first axis.

        Raises:
            DataError: If there are several, or the samples are on another axis.
        """
        names = [name for name in self.reference.input_shapes if name not in self.state.values()]
        if len(names) != 1:
            raise DataError(
                f"{self.where}: fills one input, and '{self.reference.source}' has {len(names)}: {', '.join(names)}",
                "give an .npz file with one array per input, or NAME=FILE.npy for each",
            )
        if self.reference.batching.input_axis(names[0]) != 0:
            raise DataError(
                f"{self.where}: expected input '{names[0]}' of '{self.reference.source}' to have the samples on its "
                "first axis",
                "give an .npz file with the arrays as the network reads them",
            )
        return names[0]

    def check_names(self, names: Collection[str], source: str) -> None:
        """Check that arrays are named as the network's inputs are, of which states may be missing.

        Raises:
            DataError: If they are not.
        """
        check_names(names, self.reference, source, optional=self.state.values())

    def beside_model(self, file: str) -> Path | None:
        """A file in the model's folder, or above a folder ``onnx`` that holds it; None where there is none."""
        folder = self.model.parent
        places = [folder, folder / ".."] if folder.absolute().name == "onnx" else [folder]
        return next((place / file for place in places if (place / file).is_file()), None)

    def loaded(self, arrays: Mapping[str, object], labels: object, form: str, detail: str = "") -> LoadedData:
        """Data whose arrays and labels are checked against the network.

        Args:
            arrays: As for ``check_inputs``, or ``check_sequences`` where samples are sequences.
            labels: One a sample; None for none.
            form: The loader's.
            detail: How samples became arrays, in words.

        Raises:
            DataError: If an array does not fit, or labels are needed and missing.
        """
        inputs = check_samples(arrays, self.reference, self.state, self.spec)
        count = len(next(iter(inputs.values())))
        found = check_labels(labels, count, self.spec) if self.labelled and labels is not None else None
        return LoadedData(inputs=inputs, labels=found, form=form, text=_described(self.spec, count, detail))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedData:
    """Data as the engine holds it.

    Attributes:
        inputs: Input name → array (n, …).
        labels: One a sample; None where none were asked for.
        form: Name of the loader.
        text: Where it came from and how samples became arrays, for reports.
    """

    inputs: Inputs
    labels: Array | None
    form: str
    text: str

    @property
    def labelled(self) -> Labelled:
        """Inputs and labels, as far as there are any."""
        if self.labels is None:
            return Labelled.without_labels(self.inputs)
        return Labelled(inputs=self.inputs, labels=self.labels)

    def to_json(self) -> dict[str, str]:
        """Form and text of the data, as reports keep them."""
        return {"form": self.form, "text": self.text}


class Loader(Protocol):
    """A form of data and the way it is read.

    Attributes:
        form: Its name, in messages and reports.
        described: What is given, for help texts and errors: ``a folder of images``.
        options: Key of ``--data-options`` → what its value is.
        sequences: Whether a sample may be a sequence, (time, …) an input.
    """

    @property
    def form(self) -> str: ...  # noqa: D102 - see the class

    @property
    def described(self) -> str: ...  # noqa: D102 - see the class

    @property
    def options(self) -> Mapping[str, str]: ...  # noqa: D102 - see the class

    @property
    def sequences(self) -> bool: ...  # noqa: D102 - see the class

    def recognises(self, spec: str) -> bool:
        """Whether what an option was given is of this form; looks at names alone."""
        ...

    def check(self, spec: str, option: str) -> None:
        """Refuse what can be refused before the network is loaded: missing files, missing libraries.

        Raises:
            DataError: If something is missing.
        """
        ...

    def load(self, request: DataRequest) -> LoadedData:
        """Read the data for a network.

        Raises:
            DataError: If it is damaged, or does not fit.
            UsageError: If an option makes no sense.
        """
        ...


def library(module: str, package: str, extra: str, why: str) -> ModuleType:
    """An optional library.

    Args:
        module: What is imported.
        package: Its name where packages are installed from.
        extra: The extra of this package that brings it.
        why: What needs it, with the option: ``--calib: 'photos': reading images``.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{why} needs {package}, which cannot be imported ({error})",
            f"pip install {package}, or install this program with its extra '{extra}'",
        ) from error


def check_room(size_bytes: int, where: str) -> None:
    """Refuse what does not fit into the memory that is free.

    Raises:
        DataError: If it does not.
    """
    free = psutil.virtual_memory().available
    if size_bytes > free:
        raise DataError(
            f"{where}: its arrays take {size_bytes:,} bytes, and {free:,} bytes of memory are free",
            "read fewer of them with --data-options samples=N",
        )


def shuffled(count: int, most: int | None) -> list[int]:
    """Indices of samples in an order that only their number decides, the first ``most`` of them."""
    return [int(index) for index in np.random.default_rng(SHUFFLE_SEED).permutation(count)[:most]]


def missing_labels(request: DataRequest, hint: str) -> MissingLabelsError:
    """Return the error for evaluation data without labels."""
    return MissingLabelsError(f"{request.where}: has no labels", hint)


def _described(spec: str, count: int, detail: str) -> str:
    return f"{count} samples of {spec}" + (f", {detail}" if detail else "")
