"""The forms of data there are: to add one, write its loader and list it in ``LOADERS``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitfront.core import DataError, UsageError
from bitfront.search.inputs.data.base import CALIB, EVAL, DataRequest, LoadedData, Loader
from bitfront.search.inputs.data.dataset_folder import DatasetFolder
from bitfront.search.inputs.data.npy_files import NpyFiles
from bitfront.search.inputs.data.npz_file import NpzFile
from bitfront.search.inputs.data.npz_folder import NpzFolder
from bitfront.search.inputs.data.options import OPTION, LoaderOptions, split_scopes, unknown_key
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


def check_data(specs: Mapping[str, str | None], options: Sequence[tuple[str, str]], *, sequences: bool = False) -> None:
    """Refuse data and options that can be refused before a network is loaded.

    Args:
        specs: ``--calib`` and ``--eval`` → what they were given; None where they were not.
        options: (key, value) as typed behind ``--data-options``.
        sequences: Whether samples are sequences.

    Raises:
        DataError: If there is no such data, or samples of its form are no sequences.
        UsageError: If a key means nothing to it, or a library is missing.
    """
    found = {option: find_loader(spec, option) for option, spec in specs.items() if spec is not None}
    forms = [loader.described for loader in found.values()] or ["nothing: there is neither --calib nor --eval"]
    known = {key for loader in found.values() for key in loader.options}
    for option in (CALIB, EVAL):
        scoped = split_scopes(options, option)
        taken = found[option].options if option in found else known
        own = next((key for key, _ in options if key.startswith(f"{option[2:]}:")), None)
        if own is not None and option not in found:
            raise UsageError(
                f"{OPTION}: '{own}' is for {option}, which is not given", f"leave it out, or give {option}"
            )
        for key in scoped:
            # A general key may be for the other of the two.
            if key not in known or (key not in taken and (key, scoped[key]) not in options):
                raise unknown_key(key, known, forms)
    for option, loader in found.items():
        if sequences and not loader.sequences:
            taken_forms = ", ".join(each.described for each in LOADERS if each.sequences)
            raise DataError(
                f"{option}: '{specs[option]}': {loader.described} holds samples of a single step, and with --state "
                "each sample is a sequence",
                f"give {taken_forms}, with arrays (samples, time, …) or (time, …) a file",
            )
        loader.check(str(specs[option]), option)


def load_data(
    spec: str,
    option: str,
    options: Sequence[tuple[str, str]],
    model: Path,
    reference: ReferenceModel,
    *,
    labelled: bool | None = None,
    state: Mapping[str, str] | None = None,
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
        state=state or {},
    )
    return loader.load(request)
