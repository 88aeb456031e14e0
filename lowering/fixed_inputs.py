"""Inputs that are one number in all of a person's data, where they alone decide which branch of an If runs.

A network with a branch for 8 kHz and one for 16 kHz is searched in the branch that the data takes. The input stays an
input; what is written answers as the given network does for that number alone, which a notice says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx

from bitfront.core import Array, ConfigError, Inputs
from bitfront.core.ragged import is_ragged
from bitfront.lowering.graph import graphs_of
from bitfront.lowering.reference import ReferenceModel, make_reference


def fix_shared_inputs(reference: ReferenceModel, *data: Inputs | None) -> ReferenceModel:
    """The reference model with branches taken that the data decides; the same one where it decides none.

    Args:
        reference: The network.
        data: Sets of samples, (n, …) an input, that the network is to be searched and scored with; None counts as none.
    """
    given = [samples for samples in data if samples is not None]
    if not given or reference.given is None or not _has_branches(reference.proto):
        return reference
    fixed = _one_number_each(reference, given)
    if not fixed:
        return reference
    made = make_reference(
        reference.given,
        reference.source,
        reference.interpreter,
        skipped=reference.skipped_steps,
        fixed_inputs=fixed,
        weights=reference.weights,
    )
    if not made.fixed_inputs:
        return reference
    told = ", ".join(f"'{name}' is {value:g}" for name, value in made.fixed_inputs.items())
    text = f"'{reference.source}': input {told} in all inputs given, which decides a branch: the network is searched as"
    return replace(
        made,
        given=reference.given,
        batching=reference.batching,
        notices=(*reference.notices, f"{text} it answers for that value alone"),
    )


def check_fixed_inputs(reference: ReferenceModel, inputs: Inputs) -> None:
    """Refuse inputs for which another branch may run than the one that the network was reduced to.

    Args:
        reference: The network of a config.
        inputs: One array per network input, (n, …).

    Raises:
        ConfigError: If an input that decided a branch is another number in them.
    """
    for name, value in reference.fixed_inputs.items():
        others = [number for sample in inputs.get(name, ()) for number in np.unique(sample) if number != value]
        if others:
            raise ConfigError(
                f"the config is for input '{name}' of {value:g} alone, which decides a branch of '{reference.source}', "
                f"and the data has {others[0]:g}",
                f"give data in which '{name}' is {value:g}, or search the network again with this data",
            )


def _has_branches(proto: onnx.ModelProto) -> bool:
    return any(node.op_type == "If" for graph in graphs_of(proto.graph) for node in graph.node)


def _one_number_each(reference: ReferenceModel, data: Iterable[Inputs]) -> dict[str, float]:
    """Input that all samples share → its one number, for those that have the same in all of the data."""
    found = {}
    for name, kind in reference.input_types.items():
        if reference.batching.input_axis(name) is not None or np.dtype(kind).kind not in "biuf":
            continue
        values = {value for samples in data for value in _numbers(samples.get(name))}
        if len(values) == 1 and (value := values.pop()) is not None:
            found[name] = value
    return found


def _numbers(samples: Array | None) -> set[float | None]:
    """The numbers that an input of one element has; None stands for whatever is none."""
    if samples is None or is_ragged(samples) or not len(samples) or samples[0].size != 1:
        return {None}
    distinct = np.unique(samples[:1] if samples.strides[0] == 0 else samples)
    number = float(distinct[0])
    exact = len(distinct) == 1 and np.isfinite(number) and distinct.dtype.type(number) == distinct[0]
    return {number if exact else None}
