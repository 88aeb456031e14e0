"""Layout of a network's samples: the batch axes that a person says, that files show and that runs show."""

from __future__ import annotations

from collections.abc import Mapping

from bitfront.backends.sequences import Recurrence
from bitfront.core import Inputs
from bitfront.lowering.equivalence import equivalent_to_given
from bitfront.lowering.fixed_inputs import fix_shared_inputs
from bitfront.lowering.measured_batching import measured_batching, single_batching
from bitfront.lowering.reference import ReferenceModel, with_batch_axes
from bitfront.search.inputs.layout.sample_files import one_sample_a_file
from bitfront.search.inputs.layout.sequences import first_steps, recurrence_of, steps_of
from bitfront.search.inputs.source import Source


def declared_layout(reference: ReferenceModel, source: Source) -> ReferenceModel:
    """The reference model with the batch axes that a person says, or that folders of files show."""
    if source.batch_axes:
        return with_batch_axes(reference, dict(source.batch_axes))
    if source.state:
        return reference  # a file is a sequence
    return one_sample_a_file(reference, [spec for spec in (source.calibration, source.evaluation) if spec is not None])


def measured_layout(reference: ReferenceModel, calibration: Inputs, state: Mapping[str, str]) -> ReferenceModel:
    """The reference model with the batch axes that runs show.

    Args:
        reference: The network.
        calibration: Samples (n, …), or sequences where there are states.
        state: Output → the input that it feeds at the next step; empty where samples are no sequences.

    Raises:
        DataError: As ``single_batching`` does.
    """
    step = _one_step(reference, calibration, state)
    return measured_batching(single_batching(reference, step, state.values()), step)


def decided_network(
    reference: ReferenceModel, state: Mapping[str, str], calibration: Inputs, evaluation: Inputs | None = None
) -> ReferenceModel:
    """The reference model with the branches taken that the data decides, compared with the given network.

    Args:
        reference: As ``measured_layout`` gives it.
        state: Output → the input that it feeds at the next step; empty where samples are no sequences.
        calibration: Samples (n, …), or sequences where there are states.
        evaluation: As ``calibration``; None where there is none.

    Raises:
        DataError: As ``single_batching`` does.
    """
    steps = [_one_step(reference, each, state) for each in (calibration, evaluation) if each is not None]
    found = equivalent_to_given(fix_shared_inputs(reference, *steps), steps[0])
    return single_batching(found, steps[-1], state.values())


def single_steps(
    reference: ReferenceModel, state: Mapping[str, str], samples: Inputs
) -> tuple[Inputs, Recurrence | None]:
    """Samples as single steps, (n, …) an input, and how the network is run over sequences, None where there are none.

    Raises:
        DataError: If the network does not take them.
    """
    if not state:
        return samples, None
    recurrence = recurrence_of(reference, state)
    return steps_of(samples, reference, recurrence), recurrence


def _one_step(reference: ReferenceModel, inputs: Inputs, state: Mapping[str, str]) -> Inputs:
    return first_steps(inputs, recurrence_of(reference, state)) if state else inputs
