r"""Engine inspectors' JSON and profilers' times, told in terms of the artifact's nodes.

The samples are written after NVIDIA's documentation of the two formats ("Engine Inspector"; "Migrating IEngineInspector
Usage from TensorRT 10.x to 11.x"); \x1f between two nodes stands unescaped in the text, as TensorRT writes it.
"""

from __future__ import annotations

import re

import pytest

from bitfront.backends.base import ExecutedLayer
from bitfront.backends.tensorrt.inspect import engine_layers, layer_nodes, operator_names, with_times
from bitfront.backends.tensorrt.messages import build_reason, mentioned
from bitfront.core import BackendError

_TEN = """
{"Layers": [{
  "Name": "Reformatting CopyNode for Input Tensor 0 to QuantizeLinear_x",
  "LayerType": "Reformat",
  "Inputs": [{"Name": "x", "Location": "Device", "Dimensions": [8,3,32,32],
    "Format/Datatype": "Row major linear FP32"}],
  "Outputs": [{"Name": "Reformatted Input Tensor 0", "Location": "Device", "Dimensions": [8,3,32,32],
    "Format/Datatype": "Channel major FP32 format where channel % 4 == 0"}],
  "ParameterType": "Reformat",
  "TacticValue": "0x00000000000003ea",
  "StreamId": 0,
  "Metadata": ""
},{
  "Name": "conv1.weight + dq_conv1_weight + layer1.conv1 + Relu_1",
  "LayerType": "CaskConvolution",
  "Inputs": [{"Name": "x_q", "Location": "Device", "Dimensions": [8,16,32,32],
    "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
  "Outputs": [{"Name": "relu", "Location": "Device", "Dimensions": [8,16,32,32],
    "Format/Datatype": "Row major linear FP32"}],
  "ParameterType": "Convolution",
  "Kernel": [3,3],
  "Weights": {"Type": "Int8", "Count": 2304},
  "Activation": "RELU",
  "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8f32_i8i32_f32_nchw_vect_c_32kcrs_tilesize64x64x64",
  "TacticValue": "0x9cb304e2edbc1221",
  "StreamId": 0,
  "Metadata": "[ONNX Layer: dq_conv1_weight]\x1f[ONNX Layer: layer1.conv1]\x1f[ONNX Layer: Relu_1]"
},{
  "Name": "layer1.conv2",
  "LayerType": "CaskConvolution",
  "Inputs": [{"Name": "relu", "Location": "Device", "Dimensions": [8,16,32,32],
    "Format/Datatype": "Row major linear FP32"}],
  "Outputs": [],
  "TacticName": "sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nchw_tilesize128x128x16",
  "TacticValue": "0x1",
  "Metadata": "[ONNX Layer: layer1.conv2]"
},{
  "Name": "__myl_CastAdd_myl0_3",
  "LayerType": "kgen",
  "Inputs": [{"Name": "a", "Dimensions": [8,10], "Format/Datatype": "Half"}],
  "Outputs": [{"Name": "y", "Dimensions": [8,10], "Format/Datatype": "Float"}],
  "TacticName": "__myl_CastAdd_0x9f",
  "Metadata": "[ONNX Layer: cast_y]\x1e[ONNX Layer: fc]"
}],
"Bindings": ["x", "y"]}
""".replace("\\x1f", "\x1f").replace("\\x1e", "\x1e")

_ELEVEN = """
{"Layers": [{
  "Name": "layer1.conv1 + Relu_1",
  "LayerType": "conv",
  "Inputs": [{"Name": "x_q", "Dimensions": [8,16,32,32], "DataType": "Int8",
    "Format": "Thirty-two wide channel vectorized row major format (kCHW32)"}],
  "Outputs": [{"Name": "relu", "Dimensions": [8,16,32,32], "DataType": "Half",
    "Format": "Row major linear FP16 format (kLINEAR)"}],
  "TacticName": "ampere_fprop_kernel",
  "Metadata": "[ONNX Layer: layer1.conv1]\x1f[ONNX Layer: Relu_1]"
},{
  "Name": "fc",
  "LayerType": "gemm",
  "Inputs": [{"Name": "flat", "Dimensions": [8,64], "DataType": "BFloat16", "Format": "(kLINEAR)"}],
  "Outputs": [{"Name": "y", "Dimensions": [8,10], "DataType": "BFloat16", "Format": "(kLINEAR)"}],
  "TacticName": "some_gemm",
  "Metadata": "[ONNX Layer: fc]"
}],
"I/O Tensors": [{"Name": "x", "IOMode": "Input", "DataType": "Float", "Dimensions": [8,3,32,32], "Location": "Device",
  "IsShapeInferenceIO": false}]}
""".replace("\\x1f", "\x1f")

_NODES = {"dq_conv1_weight": "DequantizeLinear", "layer1.conv1": "Conv", "Relu_1": "Relu", "layer1.conv2": "Conv"}
_NODES |= {"cast_y": "Cast", "fc": "Gemm"}


def test_version_ten() -> None:
    """Layers are told with kind, tactic, nodes and what they multiply in: the tactic says TF32 where types say FP32."""
    layers = engine_layers(_TEN, _NODES)
    assert [(layer.kind, layer.precision, layer.nodes) for layer in layers] == [
        ("Reformat", "fp32", ()),
        ("CaskConvolution", "int8", ("dq_conv1_weight", "layer1.conv1", "Relu_1")),
        ("CaskConvolution", "tf32", ("layer1.conv2",)),
        ("kgen", "fp16", ("cast_y", "fc")),
    ]
    assert layers[0].detail == "0x00000000000003ea"
    assert layers[1].detail.startswith("sm80_xmma_fprop")
    assert operator_names(layers, _NODES)[:2] == ("Reformat", "CaskConvolution(DequantizeLinear+Conv+Relu)")


def test_version_eleven() -> None:
    """Type and layout are apart there, and the layout's own words about types do not count."""
    layers = engine_layers(_ELEVEN, _NODES)
    assert [(layer.kind, layer.precision, layer.nodes) for layer in layers] == [
        ("conv", "int8", ("layer1.conv1", "Relu_1")),
        ("gemm", "bf16", ("fc",)),
    ]


def test_an_engine_that_tells_names_alone() -> None:
    """Names of nodes are found in names of layers; nothing else is claimed."""
    (layer,) = engine_layers('{"Layers": ["layer1.conv1 + Relu_1 + unknown"], "Bindings": []}', _NODES)
    assert layer.nodes == ("layer1.conv1", "Relu_1")
    assert (layer.kind, layer.precision, layer.detail) == ("", "", "")


def test_types_that_are_not_known_stay_open() -> None:
    """Shapes that are not known leave types untold."""
    text = '{"Layers": [{"Name": "a", "Inputs": [{"Format/Datatype": "N/A due to dynamic shapes"}]}]}'
    assert engine_layers(text, ())[0].precision == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "gave no JSON"), ("[]", "expected a list of 'Layers'"), ('{"Layers": 3}', "expected a list of 'Layers'")],
)
def test_what_is_no_inspection_is_refused(text: str, message: str) -> None:
    """Anything but the documented form is a typed error."""
    with pytest.raises(BackendError, match=message):
        engine_layers(text, ())


@pytest.mark.parametrize(
    ("metadata", "nodes"),
    [
        ("[ONNX Layer: a]", ("a",)),
        ("[ONNX Layer: a]\x1f[ONNX Layer: b]\x1f[ONNX Layer: a]", ("a", "b")),
        ("[ONNX Layer: a][ONNX Layer: b]", ("a", "b")),
        ("[ONNX Layer: odd [1]]\x1f[ONNX Layer: b]", ("odd [1]", "b")),
        ("[ONNX Layer: a]\x1e[ONNX Layer: b]", ("a", "b")),
    ],
)
def test_nodes_are_read_from_metadata(metadata: str, nodes: tuple[str, ...]) -> None:
    """Each node once, whatever is between them or in their names."""
    assert layer_nodes("layer", metadata, frozenset()) == nodes


def _layer(name: str) -> ExecutedLayer:
    return ExecutedLayer(name=name, kind="conv", precision="", nodes=(), detail="", latency_us=None)


def test_times_are_means_by_name_and_order() -> None:
    """Two layers of one name are told apart; what is not timed stays so; what is not listed comes last."""
    runs = [
        [("a", 1.0), ("a", 3.0), ("copy", 0.5)],
        [("a", 2.0), ("a", 5.0), ("copy", 0.5)],
    ]
    found = with_times([_layer("a"), _layer("b"), _layer("a")], runs)
    assert [(layer.name, layer.latency_us) for layer in found] == [
        ("a", 1500.0),
        ("b", None),
        ("a", 4000.0),
        ("copy", 500.0),
    ]


def test_nodes_are_found_in_messages() -> None:
    """Whole names count, longer ones before those inside them, in the order they are mentioned."""
    names = ("conv", "conv.1", "/block/conv", "relu", "")
    assert mentioned("no kernel for {ForeignNode[relu...conv.1]}, see relu.", names) == ("relu", "conv.1")
    assert mentioned("/block/conv failed", names) == ("/block/conv",)
    assert mentioned("reconvene", names) == ()


def test_reasons_are_stripped_of_where_they_arose() -> None:
    """What TensorRT says of its own sources goes; several errors are joined, repeated ones told once."""
    errors = [
        "[E] [optimizer.cpp::computeCosts::4048] Error Code 10: Internal Error (no implementation for node conv)",
        "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (no implementation for node conv)",
    ]
    reason = build_reason(errors, ["conv"])
    assert reason == "node 'conv': Internal Error (no implementation for node conv)"
    assert build_reason([], ["conv"]) == "the builder gave no reason"
    assert re.match("nodes 'a', 'b': ", build_reason(["a clashes with b"], ["a", "b"]))
