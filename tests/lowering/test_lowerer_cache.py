"""Ranges and rounded weights of a lowerer come from the cache only for the same network and calibration inputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bitfront.core import CalibrationSettings, ContentStore, Inputs, RangeMethod
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.reference import ReferenceModel
from tests.lowering.candidates import uniform
from tests.lowering.topologies import TOPOLOGIES, Net, inputs_of, reference_of
from tests.references import make_reference


def lowerer(reference: ReferenceModel, inputs: Inputs, store: ContentStore, method: RangeMethod) -> Lowerer:
    return Lowerer(reference, get_dialect("ort-cpu"), inputs, CalibrationSettings(method=method), store)


def louder() -> ReferenceModel:
    """The network with other weights."""
    model = TOPOLOGIES["chain"]()
    for tensor in model.graph.initializer:
        if tensor.name == "a.weight":
            value = onnx.numpy_helper.to_array(tensor) * np.float32(1.5)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return make_reference(model, "louder")


CHAIN = reference_of("chain")
INPUTS, OTHERS = inputs_of(CHAIN), inputs_of(CHAIN, seed=9)
CASES = {
    "network": (louder(), INPUTS, RangeMethod.MINMAX),
    "calibration inputs": (CHAIN, OTHERS, RangeMethod.MINMAX),
    "range method": (CHAIN, INPUTS, RangeMethod.MSE),
}


@pytest.mark.parametrize("name", CASES)
def test_what_differs_is_calibrated_and_rounded_anew(name: str) -> None:
    """With what another lowerer left in the store it writes the bytes it writes by itself."""
    reference, inputs, method = CASES[name]
    alone = lowerer(reference, inputs, ContentStore(None), method)
    schemes = uniform(alone, "int4:gptq")
    wanted = alone.lower(schemes).data
    shared = ContentStore(None)
    before = lowerer(CHAIN, INPUTS, shared, RangeMethod.MINMAX)
    assert before.lower(schemes).data != wanted, "the test says nothing otherwise"
    after = lowerer(reference, inputs, shared, method)
    assert dict(after.ranges) == dict(alone.ranges)
    assert after.lower(schemes).data == wanted


def test_gptq_depends_on_the_inputs_themselves() -> None:
    """Not on their ranges alone: of a layer without a bias, whose scales no range limits, it is rounded anew."""
    net = Net(("batch", 64))
    reference = make_reference(net.model([net.op("MatMul", ["x", net.weight("w", 64, 32, fan_in=64)], "y")]), "product")
    first = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    second = first @ np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32)

    def rounded(inputs: Inputs, store: ContentStore) -> bytes:
        one = lowerer(reference, inputs, store, RangeMethod.MINMAX)
        return one.lower(uniform(one, "int4:gptq:weight-only")).data

    wanted, shared = rounded({"x": second}, ContentStore(None)), ContentStore(None)
    assert rounded({"x": first}, shared) != wanted, "the test says nothing otherwise"
    assert rounded({"x": second}, shared) == wanted
