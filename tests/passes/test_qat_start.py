"""Where quantisation-aware training starts, and the parts of its loss: biases with their corrections, temperature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch.nn import functional

from bitfront.core import Scheme
from bitfront.passes.data import Batch
from bitfront.passes.qat import Qat
from bitfront.passes.qat_layers import TrainedLayer, trained_weight
from tests.lowering.candidates import lowerer_of, uniform


def test_training_starts_with_corrected_biases() -> None:
    """A layer's bias starts as the network's own plus the correction of its rounded weight."""
    lowerer = lowerer_of("chain")
    schemes = uniform(lowerer, "int4:gptq")
    rounded = lowerer.rounded(Scheme.parse("int4:gptq"))
    own = {tensor.name: numpy_helper.to_array(tensor) for tensor in lowerer.reference.proto.graph.initializer}
    network = Qat().network(lowerer, schemes)
    moved = 0
    for layer in lowerer.quantisable.layers:
        trained = network.layer(layer.name)
        correction = rounded[layer.name].bias_correction
        assert trained.bias is not None
        assert correction is not None
        found = (trained.bias * trained.bias_unit).detach().numpy()
        np.testing.assert_allclose(found, own[f"{layer.name}.bias"] + correction, rtol=1e-5, atol=1e-6)
        moved += int(np.abs(correction).max() > 1e-4)
    assert moved, "the test says nothing otherwise"


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("labels", [0.0, 0.25])
def test_the_loss_is_the_divergence_at_its_temperature(temperature: float, labels: float) -> None:
    """(1 − labels) · T² · KL(softmax(wanted / T) ‖ softmax(found / T)) + labels · cross-entropy."""
    rng = np.random.default_rng(0)
    found, wanted = (torch.from_numpy(rng.normal(0, 3, (5, 4))) for _ in range(2))
    batch = Batch(inputs={"x": torch.zeros(5, 1)}, labels=torch.tensor([0, 1, 2, 3, 0]))
    loss = Qat(temperature=temperature, labels=labels)._loss((found,), (wanted,), batch)
    right = torch.softmax(wanted / temperature, 1)
    gaps = torch.log_softmax(wanted / temperature, 1) - torch.log_softmax(found / temperature, 1)
    expected = temperature**2 * float((right * gaps).sum(1).mean())
    assert batch.labels is not None
    cross = float(functional.cross_entropy(found, batch.labels))
    assert float(loss) == pytest.approx((1 - labels) * expected + labels * cross, rel=1e-6)


def test_biases_of_integer_layers_are_whole_steps() -> None:
    """In front of 8-bit arithmetic a bias is a multiple of s_x · s_w, and at most half of one away from its value."""
    lowerer = lowerer_of("chain")
    layer = lowerer.quantisable.layers[0]
    weight = np.random.default_rng(1).normal(size=layer.weight_shape).astype(np.float32)
    scales = np.linspace(0.01, 0.03, layer.weight_shape[0]).astype(np.float32)
    integers = np.clip(np.rint(weight / scales[:, None, None, None]), -127, 127).astype(np.int8)
    trained = trained_weight(layer, Scheme.parse("int8:mse"), weight, (integers, scales), 8, None)
    bias = torch.linspace(-1, 1, layer.weight_shape[0])
    integer = TrainedLayer(trained, bias.clone(), integer=True)
    input_step = torch.tensor(0.05)
    found = integer(input_step)[1].detach().double()
    steps = (input_step * torch.from_numpy(scales)).double()
    codes_of_bias = found / steps
    assert (codes_of_bias - codes_of_bias.round()).abs().max() < 1e-2
    assert ((found - bias).abs() <= 0.501 * steps).all()
    assert (found - bias).abs().max() > 0.1 * steps.min(), "the test says nothing otherwise"
    floating = TrainedLayer(trained, bias.clone(), integer=False)
    torch.testing.assert_close(floating(input_step)[1].detach(), bias)
