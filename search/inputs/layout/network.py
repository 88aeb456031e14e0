"""A network with the batch axes that a person says, that files show and that runs show, compared with the given one."""

from __future__ import annotations

from collections.abc import Mapping

from bitfront.core import Inputs
from bitfront.lowering.equivalence import equivalent_to_given
from bitfront.lowering.measured_batching import measured_batching
from bitfront.lowering.reference import ReferenceModel, with_batch_axes
from bitfront.search.inputs.layout.sample_files import one_sample_a_file
from bitfront.search.inputs.layout.sequences import check_sequences, first_steps, recurrence_of, steps_of
from bitfront.search.inputs.source import Source


def laid_out(reference: ReferenceModel, source: Source) -> ReferenceModel:
    """The reference model with the batch axes that a person says, or that folders of files show."""
    if source.batch_axes:
        return with_batch_axes(reference, dict(source.batch_axes))
    return one_sample_a_file(reference, [spec for spec in (source.calibration, source.evaluation) if spec is not None])


def stepped(
    reference: ReferenceModel, brought: Mapping[str, object], state: Mapping[str, str], where: str
) -> tuple[ReferenceModel, Inputs]:
    """The network as ``compared`` gives it, and calibration sequences as one sample a step."""
    sequences = check_sequences(brought, reference, recurrence_of(reference, state), where)
    first = first_steps(sequences, recurrence_of(reference, state))
    reference = equivalent_to_given(measured_batching(reference, first), first)
    return reference, steps_of(sequences, reference, recurrence_of(reference, state))


def compared(reference: ReferenceModel, inputs: Inputs | None) -> ReferenceModel:
    """The reference model with the batch axes that runs show, compared with the given network."""
    return equivalent_to_given(reference if inputs is None else measured_batching(reference, inputs), inputs)
