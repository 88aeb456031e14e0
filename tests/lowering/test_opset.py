"""Old opsets: an operator whose definition changed means in the normalised network what it meant in the given one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import Array, ModelError
from bitfront.lowering.opset import OPSET, opset_of, with_opset
from tests.lowering.operator_forms import X
from tests.lowering.operator_table import FORMS
from tests.lowering.single_operators import BODIES, replaced_versions, samples
from tests.references import INTERPRETER, make_reference

SAMPLES = samples()
# What no operator of the newer opset does, so that the network is refused with these words.
REFUSED = {"Resize-10-nearest-mixed": "one axis larger and another smaller", "Scan-8": "has a batch axis"}


def _wide(array: Array) -> NDArray[np.float64]:
    wide: NDArray[np.float64] = array.astype(np.float64)
    return wide


def test_no_operator_is_missing() -> None:
    """Each version that a later opset replaced has a sample."""
    missing = []
    for name, first, last in replaced_versions():
        opsets = range(first, last + 1)
        if name not in (*FORMS, *BODIES) or not any(f"{name}-{opset}" in _ids() for opset in opsets):
            missing.append(f"{name}-{first}")
    assert missing == []


def _ids() -> set[str]:
    return {"-".join(label.split("-")[:2]) for label in SAMPLES}


@pytest.mark.parametrize("label", [label for label in SAMPLES if label not in REFUSED])
def test_an_old_operator_keeps_its_meaning(label: str) -> None:
    """The normalised network answers as ONNX Runtime says of the given one."""
    sample = SAMPLES[label]()
    wanted = INTERPRETER.load(sample.model, optimised=False).run(sample.feeds)
    reference = make_reference(sample.model, label)
    assert opset_of(reference.proto) >= OPSET
    for one, other in zip(wanted, INTERPRETER.load(reference.proto, optimised=False).run(sample.feeds), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(_wide(other), _wide(one), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("label", REFUSED)
def test_what_cannot_be_said_is_refused(label: str) -> None:
    """An operator without a newer equal is named instead of being changed."""
    with pytest.raises(ModelError, match=REFUSED[label]):
        make_reference(SAMPLES[label]().model, label)


def _body(node: onnx.NodeProto, opset: int, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The node, which reads ``x`` and writes ``b``, in both branches of an If."""
    other = onnx.NodeProto()
    other.CopyFrom(node)
    other.output[0] = "e"
    branch, otherwise = (
        helper.make_graph([made], "body", [], [helper.make_tensor_value_info(made.output[0], TensorProto.FLOAT, None)])
        for made in (node, other)
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=otherwise)],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape),
            helper.make_tensor_value_info("c", TensorProto.BOOL, ()),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        pytest.param(helper.make_node("Hardmax", ["x"], ["b"], axis=1), 11, id="hardmax"),
        pytest.param(helper.make_node("Softmax", ["x"], ["b"], axis=2), 11, id="softmax"),
        pytest.param(helper.make_node("Upsample", ["x", "s"], ["b"], mode="linear"), 9, id="upsample"),
        pytest.param(helper.make_node("Resize", ["x", "s"], ["b"], mode="linear"), 10, id="resize"),
    ],
)
def test_bodies_are_converted_too(node: onnx.NodeProto, opset: int) -> None:
    """What stands in a branch means what it meant there."""
    constants = {"s": np.array([1, 1, 1.5, 1.5], np.float32)} if len(node.input) > 1 else {}
    model = _body(node, opset, constants)
    feeds = {"x": X, "c": np.array(True)}
    (wanted,) = INTERPRETER.load(model, optimised=False).run(feeds)
    (found,) = INTERPRETER.load(make_reference(model, "net").proto, optimised=False).run(feeds)
    np.testing.assert_allclose(_wide(found), _wide(wanted), rtol=1e-5, atol=1e-5)


def test_names_survive() -> None:
    """The converter's own names for nodes are not taken over, and made-up tensors take no name that is in use."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["y"], axis=1, name="attention"),
        helper.make_node("Shape", ["x"], ["y_shape"], name="sizes"),
    ]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)]
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    outs += [helper.make_tensor_value_info("y_shape", TensorProto.INT64, None)]
    model = helper.make_model(helper.make_graph(nodes, "g", ends, outs), opset_imports=[helper.make_opsetid("", 11)])
    raised = with_opset(model, "net")
    assert {"attention", "sizes"} <= {node.name for node in raised.graph.node}
    made = [name for node in raised.graph.node for name in node.output]
    assert len(made) == len(set(made))


def test_group_normalisation_of_unknown_channels_is_refused() -> None:
    """One scale a group cannot be repeated a channel without knowing how many there are."""
    node = helper.make_node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=2)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None, 3])],
        [numpy_helper.from_array(np.ones(2, np.float32), "s")],
    )
    with pytest.raises(ModelError, match=r"writes 'y' has one scale a group"):
        make_reference(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), "net")
