"""Contents of each output of a network as far as its graph tells, which ``agreement`` decides by.

Class scores are what ends in Softmax or LogSoftmax, and the only floating-point output of a network if it has shape
(n, classes) and ends in a matrix product, as classifiers are exported, unless its name says otherwise. In doubt an
output holds numbers: the noise of class scores says something of them, the largest of a row of coordinates nothing.
"""

from __future__ import annotations

from bitfront.core.metric import OutputInfo
from bitfront.lowering.graph import GraphView
from bitfront.lowering.reference import ReferenceModel
from bitfront.sensitivity.divergence_metric import CLASSES, output_readings

_FLOATS = frozenset({0, 1, 10, 11, 16})  # TensorProto: not declared, FLOAT, FLOAT16, DOUBLE, BFLOAT16
_PASSING = frozenset(("Identity", "Cast", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Add"))
_LINEAR = frozenset(("Gemm", "MatMul"))
_NO_CLASSES = (
    *("embed", "feature", "hidden", "vector", "box", "coord", "point", "regress", "forecast", "value", "state"),
)


def output_infos(reference: ReferenceModel) -> tuple[OutputInfo, ...]:
    """Return what each output of a network holds, in its order."""
    floats = {value.name: value.type.tensor_type.elem_type in _FLOATS for value in reference.proto.graph.output}
    alone = sum(floats.values()) == 1
    readings = output_readings(reference.proto, None)
    found = []
    for name, reading in zip(reference.output_names, readings, strict=True):
        axis = None
        if reading.kind == CLASSES:
            axis = _sample_axis(reference, name, reading.axis)
        elif alone and floats[name] and _is_classifier(reference, name):
            axis = -1 if _is_row(reference, name) else 1
        found.append(OutputInfo(name=name, is_float=floats[name], class_axis=axis))
    return tuple(found)


def _sample_axis(reference: ReferenceModel, name: str, axis: int | None) -> int:
    """The axis of the classes once the samples are the first axis."""
    shape = reference.output_shapes[name]
    if axis is None or shape is None:
        return axis if axis is not None else -1 if shape is not None and len(shape) <= 3 else 1
    batch = reference.batching.outputs.get(name, 0) or 0
    place = axis % len(shape)
    if _is_row(reference, name):
        return place + 1
    return place + 1 if place < batch else place


def _is_row(reference: ReferenceModel, name: str) -> bool:
    """Whether all of the output is one sample's row, as each run is one sample."""
    return reference.batching.single and reference.batching.outputs.get(name, 0) is None


def _is_classifier(reference: ReferenceModel, name: str) -> bool:
    shape = reference.output_shapes[name]
    if shape is None or len(shape) != 2 or (shape[1] is not None and shape[1] < 2):
        return False
    if reference.batching.outputs.get(name, 0) not in (0, None) or any(word in name.lower() for word in _NO_CLASSES):
        return False
    view, tensor = GraphView(reference.proto.graph), name
    while (index := view.producer(tensor)) is not None:
        node = view.nodes[index]
        if node.op_type in _LINEAR:
            return True
        if node.op_type not in _PASSING:
            return False
        computed = [read for read in node.input if read and read not in view.initializers]
        if node.op_type == "Add" and len(computed) > 1:
            return False
        tensor = computed[0] if computed else ""
    return False
