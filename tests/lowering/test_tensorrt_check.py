"""The checker of TensorRT's published rules sees a planted violation of each, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.lowering.dialects.tensorrt_check import RULES, check_tensorrt_graph
from tests.lowering.candidates import uniform
from tests.lowering.tensorrt_candidates import trt_lowerer


class Patient:
    """A right graph, to be spoiled."""

    def __init__(self, network: str, text: str) -> None:
        lowerer = trt_lowerer(network)
        self.model = onnx.load_from_string(lowerer.lower(uniform(lowerer, text)).data)
        self.graph = self.model.graph

    def writer(self, tensor: str) -> onnx.NodeProto:
        found: onnx.NodeProto = next(node for node in self.graph.node if tensor in node.output)
        return found

    def constant(self, array: NDArray[np.generic], name: str) -> str:
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def value(self, name: str) -> NDArray[np.generic]:
        return numpy_helper.to_array(next(tensor for tensor in self.graph.initializer if tensor.name == name))

    def before(self, tensor: str, op: str, inputs: list[str], result: str, **attributes: int) -> str:
        """Insert a node in front of the one that writes ``tensor``."""
        place = list(self.graph.node).index(self.writer(tensor))
        node = helper.make_node(op, inputs, [result])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.graph.node.insert(place, node)
        return result

    def pair(self, tensor: str, source: str, scale: str) -> str:
        """Insert a Q/DQ pair on ``source`` in front of the node that writes ``tensor``."""
        integers = self.before(tensor, "QuantizeLinear", [source, scale, "x_z"], f"{tensor}_spoilt_q")
        return self.before(tensor, "DequantizeLinear", [integers, scale, "x_z"], f"{tensor}_spoilt_d")


def _old_opset(patient: Patient) -> None:
    patient.model.ir_version = 9


def _other_domain(patient: Patient) -> None:
    patient.writer("ra_h").domain = "com.microsoft"
    patient.model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _zero_point(patient: Patient) -> None:
    patient.writer("ra_d").input[2] = patient.constant(np.array(3, np.int8), "three")


def _unsigned(patient: Patient) -> None:
    zero = patient.constant(np.array(0, np.uint8), "unsigned")
    for tensor in ("ra_q", "ra_d"):
        patient.writer(tensor).input[2] = zero


def _computed_codes(patient: Patient) -> None:
    wide = patient.constant(patient.value("b.weight_8").astype(np.int32), "wide")
    patient.writer("b.weight_f").input[0] = patient.before(
        "b.weight_f", "Cast", [wide], "narrowed", to=TensorProto.INT8
    )


def _underflow(patient: Patient) -> None:
    tiny = patient.constant(np.array(1e-6, np.float16), "tiny")
    for tensor in ("ra_q", "ra_d"):
        patient.writer(tensor).input[1] = tiny


def _per_channel_activation(patient: Patient) -> None:
    scales = patient.constant(np.full(16, 0.02, np.float16), "scales")
    for tensor in ("ra_q", "ra_d"):
        patient.writer(tensor).input[1] = scales


def _other_scale_behind(patient: Patient) -> None:
    patient.writer("ra_d").input[1] = patient.constant(np.array(0.5, np.float16), "half")


def _codes_read(patient: Patient) -> None:
    patient.graph.node.append(helper.make_node("Identity", ["ra_q"], ["copied"]))


def _second_quantiser(patient: Patient) -> None:
    patient.writer("b_h").input[0] = patient.pair("b_h", "ra_h", "ra_s")


def _wrong_axis(patient: Patient) -> None:
    patient.writer("b.weight_f").attribute[0].i = 1


def _no_axis(patient: Patient) -> None:
    del patient.writer("b.weight_f").attribute[:]


def _quantised_bias(patient: Patient) -> None:
    integers = patient.constant(np.zeros(16, np.int8), "bias_8")
    scales = patient.constant(np.ones(16, np.float16), "bias_s")
    result = patient.before("b_h", "DequantizeLinear", [integers, scales], "bias_f", axis=0)
    patient.writer("b_h").input[2] = result


def _floating_input(patient: Patient) -> None:
    patient.writer("b_h").input[0] = "ra_h"


def _three_per_group(patient: Patient) -> None:
    group = next(entry for entry in patient.writer("b_h").attribute if entry.name == "group")
    group.i = 8
    integers = patient.constant(np.ones((16, 2, 3, 3), np.int8), "grouped_8")
    patient.writer("b.weight_f").input[0] = integers


def _between_convolution_and_relu(patient: Patient) -> None:
    patient.writer("rb_h").input[0] = patient.pair("rb_h", "b_h", "ra_s")


def _fused_side_too(patient: Patient) -> None:
    patient.writer("sum_h").input[0] = patient.pair("sum_h", "c_h", "ra_s")


def _unequal_concat(patient: Patient) -> None:
    scales = [patient.constant(np.array(0.5, kind), f"other_{kind.__name__}") for kind in (np.float16, np.float32)]
    patient.writer("rc_q").input[1], patient.writer("rc_d").input[1] = scales


def _four_bits_in_convolution(patient: Patient) -> None:
    integers = TensorProto(name="codes", data_type=TensorProto.INT4, dims=[16, 16, 3, 3], raw_data=bytes(1152))
    patient.graph.initializer.append(integers)
    scales = patient.constant(np.ones((16, 1, 3, 3), np.float16), "code_scales")
    writer = patient.writer("b_h")
    writer.input[1] = patient.before("b_h", "DequantizeLinear", ["codes", scales], "codes_f", axis=1, block_size=16)


def _small_blocks(patient: Patient) -> None:
    node = patient.writer("b.weight_f")
    scales = patient.value(node.input[1])
    node.input[1] = patient.constant(np.repeat(scales, 2, axis=0), "finer")
    next(entry for entry in node.attribute if entry.name == "block_size").i = 32


def _mixed_types(patient: Patient) -> None:
    patient.writer("b_h").input[2] = patient.constant(np.zeros(16, np.float32), "full")


def _mixed_scale(patient: Patient) -> None:
    scale = patient.constant(patient.value("ra_s").astype(np.float32), "full")
    patient.writer("ra_q").input[1] = scale


PLANTED: dict[str, list[tuple[str, str, Callable[[Patient], None]]]] = {
    "versions": [("residual", "int8:mse", _old_opset)],
    "standard-operators": [("residual", "int8:mse", _other_domain)],
    "symmetric": [("residual", "int8:mse", _zero_point)],
    "codes": [("residual", "int8:mse", _unsigned)],
    "constants": [("residual", "int8:mse", _computed_codes)],
    "positive-scales": [("residual", "int8:mse", _underflow)],
    "per-tensor": [("residual", "int8:mse", _per_channel_activation), ("residual", "int8:mse", _other_scale_behind)],
    "pairs": [("residual", "int8:mse", _codes_read)],
    "one-quantiser": [("residual", "int8:mse", _second_quantiser)],
    "weight-axis": [("residual", "int8:mse", _wrong_axis), ("residual", "int8:mse", _no_axis)],
    "floating-bias": [("residual", "int8:mse", _quantised_bias)],
    "both-operands": [("residual", "int8:mse", _floating_input)],
    "grouped": [("residual", "int8:mse", _three_per_group)],
    "no-quantiser-before-activation": [("residual", "int8:mse", _between_convolution_and_relu)],
    "shortcut-only": [("residual", "int8:mse", _fused_side_too)],
    "joined-scales": [("concat", "int8:mse", _unequal_concat)],
    "four-bits": [("residual", "fp16", _four_bits_in_convolution), ("wide_gemm", "int4:mse:block64", _small_blocks)],
    "one-type": [("residual", "int8:mse", _mixed_types)],
    "scale-types": [("residual", "int8:mse", _mixed_scale)],
}
CASES = [
    pytest.param(rule, *case, id=f"{rule}:{case[2].__name__.removeprefix('_')}")
    for rule, cases in PLANTED.items()
    for case in cases
]


def test_each_rule_has_a_planted_violation() -> None:
    """No rule goes unproved."""
    assert set(PLANTED) == set(RULES)


@pytest.mark.parametrize(("rule", "network", "text", "spoil"), CASES)
def test_planted_violation(rule: str, network: str, text: str, spoil: Callable[[Patient], None]) -> None:
    """A right graph breaks no rule; spoilt in one way it breaks that rule alone, and the message says where."""
    patient = Patient(network, text)
    assert check_tensorrt_graph(patient.model) == ()
    spoil(patient)
    found = check_tensorrt_graph(patient.model)
    assert {violation.rule for violation in found} == {rule}
    assert all(violation.message.startswith("expected ") for violation in found)
    assert all(bool(violation.node) == (rule != "versions") for violation in found)
