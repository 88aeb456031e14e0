"""Inputs of passes, read from a workload and checked: ``training``, ``students``, ``augment``.

They are read only where passes are asked for. Labels beside training inputs are class numbers or left out, since that
is what a loss can use; a student must answer like the network it learns from.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitfront.core import DataError, EngineError, Inputs, Labelled, UsageError, Workload, WorkloadError
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.inputs.arrays import check_classes, check_inputs, check_labels
from bitfront.search.inputs.workloads import call_user_code, named_arrays
from bitfront.search.passes.base import StructuralPass
from bitfront.search.passes.options import PassOptions, libraries
from bitfront.search.passes.registry import selectable

if TYPE_CHECKING:
    import torch

PAGE = "docs/passes.md"
_WRITE = "write {'input': x}, or Labelled(inputs={'input': x}, labels=y)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassInputs:
    """Inputs that a workload brings for its passes.

    Attributes:
        training: Inputs, shape (n, …) each; with labels they are class numbers, int64 (n,).
        students: Name → network, of the type's name and a number from 1: ``SmallNet-1``.
        augment: Fields of ``passes.data.Augmentation``.
    """

    training: Labelled | Inputs
    students: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    augment: Mapping[str, float] = field(default_factory=dict)


def check_passes(workload: Workload, label: str, passes: PassOptions) -> None:
    """Refuse what is plain before anything is loaded; properties of the workload are not read.

    Raises:
        WorkloadError: If the workload has no training inputs, or a library is not installed.
        UsageError: If there is nothing to train.
    """
    if not _has(workload, "training"):
        raise WorkloadError(
            f"{label}: --passes needs training inputs, but it has no attribute 'training'",
            f"add 'training', inputs like 'calibration' but many more, labels optional ({PAGE})",
        )
    check_trainable(passes, label, students=_has(workload, "students"))
    for library in libraries(passes.passes):
        if find_spec(library) is None:
            raise WorkloadError(
                f"--passes {passes.names} needs {library.replace('_', '-')}, which is not installed",
                "install the 'torch' extra",
            )


def check_trainable(passes: PassOptions, label: str, *, students: bool) -> None:
    """Refuse training of variants where no pass makes any.

    Raises:
        UsageError: If there is nothing to train.
    """
    makers = [kind.name for kind in selectable().values() if issubclass(kind, StructuralPass)]
    makes_variants = students or any(one.selectable for one in passes.structural)
    if passes.recovery is not None and not makes_variants:
        raise UsageError(
            f"--passes: {passes.recovery.name} has nothing to train: neither {' nor '.join(makers)} is asked for, and "
            f"{label} has no 'students'",
            f"add {' or '.join(makers)}, give the workload students, or leave {passes.recovery.name} out",
        )


def check_module(model: torch.nn.Module | Path, label: str) -> torch.nn.Module:
    """The network as passes need it.

    Raises:
        WorkloadError: If it is an ONNX file.
    """
    if isinstance(model, str | Path):
        raise WorkloadError(
            f"{label}: --passes needs the torch module: model is the ONNX file '{model}'",
            "make the workload's model the torch.nn.Module it was exported from, or leave --passes out",
        )
    return model


def read_pass_inputs(
    workload: Workload,
    label: str,
    reference: ReferenceModel,
    *,
    teacher: torch.nn.Module | None,
    classes: int | None,
) -> PassInputs:
    """Read and check what the workload brings.

    Args:
        workload: Its ``training`` is read, and ``students`` and ``augment`` where it has them.
        label: Names the workload in messages.
        reference: Its network; inputs must fit it.
        teacher: Whom students must answer like; None leaves students out.
        classes: Of the first output; None where the graph does not say.

    Raises:
        WorkloadError: If one of them is of the wrong kind, or a student answers in another shape.
        DataError: If arrays do not fit the network.
    """
    training = _training(workload, label, reference, classes)
    inputs = training.inputs if isinstance(training, Labelled) else training
    return PassInputs(
        training=training,
        students={} if teacher is None else _students(workload, label, inputs, teacher),
        augment=_augment(workload, label),
    )


def _training(workload: Workload, label: str, reference: ReferenceModel, classes: int | None) -> Labelled | Inputs:
    where = f"{label}: training"
    found: object = call_user_code(where, lambda: workload.training)  # type: ignore[attr-defined]
    if isinstance(found, Labelled | Mapping):
        arrays = named_arrays(found.inputs if isinstance(found, Labelled) else found, where)
    else:
        raise WorkloadError(f"{where} is a {type(found).__name__}, expected a mapping of arrays or Labelled", _WRITE)
    inputs = check_inputs(arrays, reference, where)
    samples = len(next(iter(inputs.values())))
    if samples < 2:
        raise DataError(f"'{where}': holds {samples} sample, expected 2 or more", "give at least a few hundred")
    if not isinstance(found, Labelled):
        return inputs
    labels = check_labels(found.labels, samples, where)
    try:
        check_classes(labels, classes, where, use="training")
    except DataError as error:
        raise DataError(error.message, "labels are optional: give the inputs alone") from error
    return Labelled(inputs=inputs, labels=labels.astype(np.int64))


def _students(workload: Workload, label: str, inputs: Inputs, teacher: torch.nn.Module) -> dict[str, torch.nn.Module]:
    if not _has(workload, "students"):
        return {}
    import torch

    from bitfront.passes.device import seeded

    where = f"{label}: students"
    # Networks built as the property is read start from the same weights in every run.
    with seeded(0, torch.device("cpu")):
        found: object = call_user_code(where, lambda: workload.students)  # type: ignore[attr-defined]
    if not isinstance(found, Sequence) or not all(isinstance(student, torch.nn.Module) for student in found):
        kinds = ", ".join(type(part).__name__ for part in found) if isinstance(found, Sequence) else ""
        raise WorkloadError(
            f"{where}: expected a list of torch modules, got a {type(found).__name__}{f' of {kinds}' if kinds else ''}",
            "write [SmallNet()]",
        )
    wanted = _shapes(teacher, inputs, f"{label}: model")
    students = {}
    for number, student in enumerate(found, start=1):
        name = f"{type(student).__name__}-{number}"
        got = _shapes(student, inputs, f"{where}: '{name}'")
        if got != wanted:
            raise WorkloadError(
                f"{where}: '{name}' answers {_listed(got)} to two samples, the network {_listed(wanted)}",
                "a student takes the network's inputs and gives outputs of the same shapes",
            )
        students[name] = student
    return students


def _shapes(module: torch.nn.Module, inputs: Inputs, what: str) -> tuple[tuple[int, ...], ...]:
    """Shapes of all outputs on two samples."""
    import torch

    from bitfront.passes.device import modes_kept
    from bitfront.passes.prune_counts import example_tensors

    with modes_kept(module), torch.no_grad():
        outputs = call_user_code(what, lambda: module.eval()(*example_tensors(module, inputs)))
    parts = outputs if isinstance(outputs, tuple | list) else (outputs,)
    if not all(isinstance(part, torch.Tensor) for part in parts):
        raise WorkloadError(
            f"{what} gives a {type(outputs).__name__}, expected a tensor or a tuple of tensors",
            "return the outputs from forward by themselves, without a dictionary or an object around them",
        )
    return tuple(tuple(part.shape) for part in parts)


def _augment(workload: Workload, label: str) -> dict[str, float]:
    if not _has(workload, "augment"):
        return {}
    from bitfront.passes.data import Augmentation
    from bitfront.passes.options import options_from_json

    where = f"{label}: augment"
    found: object = call_user_code(where, lambda: workload.augment)  # type: ignore[attr-defined]
    try:
        options_from_json(Augmentation, found, where)
    except EngineError as error:
        raise WorkloadError(error.message, "write {'mirror': 0.5, 'shift': 4}, or leave it out") from error
    assert isinstance(found, Mapping)
    return dict(found)


def _has(workload: Workload, part: str) -> bool:
    # Looked up without evaluating it: a property may load files or build networks.
    missing = object()
    return inspect.getattr_static(workload, part, missing) not in (missing, None)


def _listed(shapes: tuple[tuple[int, ...], ...]) -> str:
    return ", ".join(str(shape) for shape in shapes)
