"""The networks' shapes, sizes and exports, with random weights."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfront.experiments.networks import DigitsNet, MobileNetV1, ResNetCifar, SqueezeNet
from bitfront.experiments.networks.mobilenet import SeparableBlock
from bitfront.experiments.networks.resnet_cifar import BasicBlock

NETWORKS = {
    "resnet8": (ResNetCifar, (8,), (3, 32, 32), 75_290),  # 464 + 4,672 + 13,952 + 55,552 + 650
    "resnet20": (ResNetCifar, (20,), (3, 32, 32), 269_722),
    "resnet56": (ResNetCifar, (56,), (3, 32, 32), 853_018),
    "squeezenet": (SqueezeNet, (), (3, 224, 224), 1_235_496),
    # The published count of 475,544 has the running means and variances in it.
    "mobilenet": (MobileNetV1, (0.25,), (3, 224, 224), 470_072),
    "digits": (DigitsNet, (), (1, 8, 8), 425_706),
}

PLAIN = {
    *("Conv", "Gemm", "Relu", "Clip", "Add", "Concat", "Slice", "Pad", "MaxPool"),
    *("GlobalAveragePool", "ReduceMean", "Reshape", "Flatten"),
}


def _build(name: str) -> tuple[nn.Module, Tensor]:
    kind, arguments, shape, _ = NETWORKS[name]
    torch.manual_seed(0)
    return kind(*arguments).eval(), torch.randn(3, *shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_those_of_the_paper(name: str) -> None:
    """A network has exactly the published number of trained parameters (of ResNet-8: counted by hand)."""
    network, _ = _build(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == NETWORKS[name][3]


@pytest.mark.parametrize("name", NETWORKS)
def test_one_row_of_scores_an_image(name: str) -> None:
    """Every image gets one row of scores that does not depend on the rest of the batch."""
    network, images = _build(name)
    with torch.inference_mode():
        scores = network(images)
        alone = network(images[1:2])
    assert scores.ndim == 2
    assert scores.shape[0] == 3
    torch.testing.assert_close(scores[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_depth_must_fit_the_stages(depth: int) -> None:
    """Only depths of 6n + 2 can be built."""
    with pytest.raises(ValueError, match=f"expected 6n \\+ 2 .* got {depth}"):
        ResNetCifar(depth)


def test_option_a_pads_zero_channels_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortcut of a halving block is every second pixel, between equally many zero channels."""
    block = BasicBlock(2, 4, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)  # leaves the shortcut alone
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    expected = torch.zeros(1, 4, 2, 2)
    expected[0, 1] = torch.tensor([[0.0, 2.0], [8.0, 10.0]])
    expected[0, 2] = torch.tensor([[16.0, 18.0], [24.0, 26.0]])
    with torch.inference_mode():
        assert torch.equal(block(x), expected)
        # Planted bug: all zeros behind.
        monkeypatch.setattr(BasicBlock, "_shortcut", lambda _, x: functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 2)))
        assert not torch.equal(block(x), expected)


def test_stride_two_pads_right_and_bottom_only() -> None:
    """A depthwise kernel that reads its top left tap samples the even pixels when it strides by two."""
    block = SeparableBlock(1, 1, stride=2).eval()
    block.depthwise_norm, block.pointwise_norm = nn.BatchNorm2d(1, eps=0.0).eval(), nn.BatchNorm2d(1, eps=0.0).eval()
    nn.init.zeros_(block.depthwise.weight)
    nn.init.ones_(block.pointwise.weight)
    block.depthwise.weight.data[0, 0, 0, 0] = 1
    x = torch.arange(16.0).reshape(1, 1, 4, 4) / 4
    with torch.inference_mode():
        out = block(x)
    assert torch.equal(out, x[:, :, ::2, ::2])


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own, inside its exporter
@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("resnet8", "dynamic"),
        ("digits", "fixed"),
        pytest.param("digits", "dynamic", marks=pytest.mark.slow),
        pytest.param("resnet56", "dynamic", marks=pytest.mark.slow),
        pytest.param("squeezenet", "fixed", marks=pytest.mark.slow),
        pytest.param("squeezenet", "dynamic", marks=pytest.mark.slow),
        pytest.param("mobilenet", "fixed", marks=pytest.mark.slow),
        pytest.param("mobilenet", "dynamic", marks=pytest.mark.slow),
    ],
)
def test_export_keeps_names_and_scores(name: str, batch: str) -> None:
    """The exported network names its weights by module path and scores as torch does, with either batch axis."""
    network, images = _build(name)
    _perturb_norms(network)
    model = _export(network, images, batch)
    names = {tensor.name for tensor in model.graph.initializer}
    convolutions = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    assert {f"{path}.weight" for path in convolutions} <= names
    # No gathers, loops or shape arithmetic: a lowering sees layers and plain glue alone.
    assert {node.op_type for node in model.graph.node} <= PLAIN
    if name.startswith("resnet"):
        operators = Counter(node.op_type for node in model.graph.node)
        assert (operators["Pad"], operators["Slice"]) == (2, 4)
    axis = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert (axis.dim_param != "") == (batch == "dynamic")
    with torch.inference_mode():
        expected = network(images).numpy()
    np.testing.assert_allclose(_run(model, images), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def _perturb_norms(network: nn.Module) -> None:
    """Make batch norm do something: fresh ones are the identity."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def _export(network: nn.Module, images: Tensor, batch: str) -> onnx.ModelProto:
    shapes = ({0: torch.export.Dim("batch")},) if batch == "dynamic" else None
    program = torch.onnx.export(network, (images,), dynamo=True, dynamic_shapes=shapes, opset_version=21, verbose=False)
    assert program is not None
    return program.model_proto


def _run(model: onnx.ModelProto, images: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    scores: np.ndarray = session.run(None, {model.graph.input[0].name: images.numpy()})[0]
    return scores
