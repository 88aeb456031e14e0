"""The forms of data there are: to add one, write its loader and list it in ``LOADERS``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitfront.core import DataError
from bitfront.search.inputs.data.base import CALIB, EVAL, DataRequest, LoadedData, Loader
from bitfront.search.inputs.data.dataset_folder import DatasetFolder
from bitfront.search.inputs.data.npy_files import NpyFiles
from bitfront.search.inputs.data.npz_file import NpzFile
from bitfront.search.inputs.data.npz_folder import NpzFolder
from bitfront.search.inputs.data.options import LoaderOptions, split_scopes, unknown_key
from bitfront.search.inputs.data.random_data import RandomData
from bitfront.search.inputs.data.text_file import TextFile
from bitfront.search.inputs.images.images import ImageFolder

if TYPE_CHECKING:
    from bitfront.lowering.reference import ReferenceModel

LOADERS: tuple[Loader, ...] = (
    RandomData(),
    NpyFiles(),
    TextFile(),
    DatasetFolder(),
    NpzFolder(),
    ImageFolder(),
    NpzFile(),  # takes any other file, and says what is wrong with it
)
"""Asked in this order; the first that recognises what it is given reads it."""


def find_loader(spec: str, option: str) -> Loader:
    """The loader of what an option was given.

    Raises:
        DataError: If no loader recognises it.
    """
    for loader in LOADERS:
        if loader.recognises(spec):
            return loader
    forms = ", ".join(loader.described for loader in LOADERS)
    raise DataError(f"{option}: '{spec}' is a folder with no data in it: expected {forms}", "see docs/data.md")


def check_data(specs: Mapping[str, str | None], options: Sequence[tuple[str, str]]) -> None:
    """Refuse data and options that can be refused before a network is loaded.

    Args:
        specs: ``--calib`` and ``--eval`` → what they were given; None where they were not.
        options: (key, value) as typed behind ``--data-options``.

    Raises:
        DataError: If there is no such data.
        UsageError: If a key means nothing to it, or a library is missing.
    """
    found = {option: find_loader(spec, option) for option, spec in specs.items() if spec is not None}
    forms = [loader.described for loader in found.values()] or ["nothing: there is neither --calib nor --eval"]
    known = {key for loader in found.values() for key in loader.options}
    for option in (CALIB, EVAL):
        scoped = split_scopes(options, option)
        taken = found[option].options if option in found else known
        for key in scoped:
            # A general key may be for the other of the two.
            if key not in known or (key not in taken and (key, scoped[key]) not in options):
                raise unknown_key(key, known, forms)
    for option, loader in found.items():
        loader.check(str(specs[option]), option)


def load_data(
    spec: str,
    option: str,
    options: Sequence[tuple[str, str]],
    model: Path,
    reference: ReferenceModel,
    *,
    labelled: bool | None = None,
) -> LoadedData:
    """Calibration or evaluation data for a network, checked; arguments as in ``DataRequest``.

    Labels are needed for ``--eval`` unless ``labelled`` says otherwise.

    Raises:
        MissingLabelsError: If labels are needed, and nothing else is missing.
        DataError: If it is damaged, or does not fit the network.
        UsageError: If an option makes no sense.
    """
    loader = find_loader(spec, option)
    values = {key: value for key, value in split_scopes(options, option).items() if key in loader.options}
    request = DataRequest(
        spec=spec,
        option=option,
        options=LoaderOptions(values),
        model=model,
        reference=reference,
        labelled=option == EVAL if labelled is None else labelled,
    )
    return loader.load(request)
