"""Whether a folder's files are one sample each, of a network that has no batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bitfront.core import Array, Batching
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.inputs.arrays import LABELS
from bitfront.search.inputs.data.archive import array_names, read_npz
from bitfront.search.inputs.data.npz_folder import npz_files

_LOOKED_AT = 8  # files


def one_sample_a_file(reference: ReferenceModel, specs: Sequence[str]) -> ReferenceModel:
    """The reference model without a batch axis where files of folders show that each is one sample.

    That is so where the arrays of a file are as the network reads them and have other numbers of rows along what was
    taken for the batch axis, such as the atoms and bonds of a graph; where a file has several rows along it and one
    label; and where it has several rows and files differ in an input without that axis.

    Args:
        reference: The network; its batch axes were told from its shapes.
        specs: What ``--calib`` and ``--eval`` were given.
    """
    if reference.batching.fixed is not None:
        return reference
    for spec in specs:
        first: Mapping[str, Array] | None = None
        for path in npz_files(spec)[:_LOOKED_AT]:
            if not set(reference.input_shapes) <= set(array_names(path)):
                continue
            arrays = read_npz(path, tuple(reference.input_shapes), labels=LABELS)
            first = arrays if first is None else first
            if _is_one_sample(arrays, first, reference):
                batching = Batching(
                    inputs=dict.fromkeys(reference.input_shapes),
                    outputs=dict.fromkeys(reference.output_names),
                    fixed=1,
                )
                text = f"'{reference.source}': each file is taken for one sample, as '{path.name}' shows, and run alone"
                return replace(reference, batching=batching, notices=(*reference.notices, text))
    return reference


def _is_one_sample(arrays: Mapping[str, Array], first: Mapping[str, Array], reference: ReferenceModel) -> bool:
    if any(arrays[name].ndim != len(shape) for name, shape in reference.input_shapes.items()):
        return False
    axes = {name: reference.batching.input_axis(name) for name in reference.input_shapes}
    counts = {arrays[name].shape[axis] for name, axis in axes.items() if axis is not None}
    if len(counts) > 1 or counts == {1}:
        return len(counts) > 1
    own = any(axis is None and not np.array_equal(arrays[name], first[name]) for name, axis in axes.items())
    return own or (LABELS in arrays and arrays[LABELS].ndim == 0)
