"""Loading and normalising: every form a network can come in ends in one form, with the same numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import Inputs, ModelError
from bitfront.lowering.reference import ReferenceModel
from tests.lowering.topologies import TOPOLOGIES, Net, chain, inputs_of, padded_shortcut, reference_of
from tests.references import export_reference, load_reference, make_reference


def run(model: onnx.ModelProto, inputs: Inputs) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))


def ops(reference: ReferenceModel) -> list[str]:
    return [node.op_type for node in reference.proto.graph.node]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_normalising_keeps_the_numbers(name: str) -> None:
    """The normalised network computes what the original does."""
    reference = reference_of(name)
    inputs = inputs_of(reference)
    for wanted, found in zip(run(TOPOLOGIES[name](), inputs), run(reference.proto, inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_batch_norm_is_folded() -> None:
    """A batch norm behind a Conv disappears into it; the weight keeps its name."""
    net = Net()
    conv = net.conv("x", "a", (16, 16))
    for name, value in (("scale", 1.5), ("shift", 0.25), ("mean", -0.1), ("var", 2.0)):
        net.constant(name, np.full(16, value, np.float32))
    net.op("BatchNormalization", [conv, "scale", "shift", "mean", "var"], "bn")
    model = net.model(["bn"])
    reference = make_reference(model, "bn")
    assert ops(reference) == ["Conv"]
    assert reference.proto.graph.node[0].input[1] == "a.weight"
    inputs = inputs_of(reference)
    np.testing.assert_allclose(run(reference.proto, inputs)[0], run(model, inputs)[0], rtol=1e-4, atol=1e-5)


def test_nodes_keep_their_names() -> None:
    """A person's names for nodes are those of the normalised network, of layers with a folded batch norm too."""
    net = Net()
    conv = net.conv("x", "a", (16, 16), weight=net.weight("kernel", 16, 16, 3, 3, fan_in=144))
    for name in ("scale", "shift", "mean", "var"):
        net.constant(name, np.full(16, 0.5, np.float32))
    net.op("BatchNormalization", [conv, "scale", "shift", "mean", "var"], "bn")
    net.op("Relu", ["bn"], "r")
    net.op("Sigmoid", ["r"], "s")
    for node in net.nodes:
        node.name = f"/features/{node.op_type}"
    net.nodes[-1].name = ""
    names = [node.name for node in make_reference(net.model(["s"]), "net").proto.graph.node]
    assert names == ["/features/Conv", "/features/Relu", "Sigmoid_3"]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16], ids=["float", "half"])
@pytest.mark.parametrize("returned", ["identity", "nested", "input"])
def test_branches_that_return_an_outer_value(returned: str, kind: int) -> None:
    """A branch that hands back what the graph around it computed, or was given, is one that runtimes take."""
    value = helper.make_tensor_value_info
    outer = "x" if returned == "input" else "h"
    same = helper.make_graph([helper.make_node("Identity", [outer], ["same"])], "same", [], [value("same", kind, None)])
    if returned == "nested":
        node = helper.make_node("If", ["c"], ["inner"], then_branch=same, else_branch=same)
        same = helper.make_graph([node], "nested", [], [value("inner", kind, None)])
    other = helper.make_graph([helper.make_node("Neg", ["h"], ["other"])], "other", [], [value("other", kind, None)])
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Identity", ["a"], ["h"]),
            helper.make_node("If", ["c"], ["y"], then_branch=same, else_branch=other),
        ],
        "g",
        [value("x", kind, ("n", 8)), value("c", TensorProto.BOOL, ())],
        [value("y", kind, None)],
        [numpy_helper.from_array(np.eye(8, dtype=helper.tensor_dtype_to_np_dtype(kind)), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.arange(16).reshape(2, 8).astype(helper.tensor_dtype_to_np_dtype(kind))
    found = make_reference(model, "net").proto
    for chosen in (True, False):
        feeds = {"x": x, "c": np.array(chosen)}
        np.testing.assert_array_equal(run(found, feeds)[0], run(model, feeds)[0])


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16], ids=["float", "half"])
def test_an_input_that_is_an_output_keeps_its_name(kind: int) -> None:
    """Arrays are matched to inputs by name: also one that the network hands back as it is, and that a branch reads."""
    value = helper.make_tensor_value_info
    branch = helper.make_graph([helper.make_node("Neg", ["x"], ["b"])], "branch", [], [value("b", kind, None)])
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
            helper.make_node("Add", ["h", "y"], ["z"]),
        ],
        "g",
        [value("x", kind, ("n", 8)), value("c", TensorProto.BOOL, ())],
        [value("z", kind, ("n", 8)), value("x", kind, ("n", 8))],
        [numpy_helper.from_array(np.eye(8, dtype=helper.tensor_dtype_to_np_dtype(kind)) * 2, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.arange(16).reshape(2, 8).astype(helper.tensor_dtype_to_np_dtype(kind))
    found = make_reference(model, "net")
    assert list(found.input_shapes) == ["x", "c"]
    assert found.output_names == ("z", "x")
    for one, other in zip(run(found.proto, {"x": x, "c": np.array(True)}), (x, x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_sizes_below_zero_are_open_axes() -> None:
    """An axis of size −1 is one of any size; first axes are the batch."""
    model = chain()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    reference = make_reference(model, "net")
    assert reference.fixed_batch is None
    assert {shape[0] for shape in reference.input_shapes.values()} == {None}
    assert reference.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_slices_over_different_axes_are_merged() -> None:
    """Two strided slices in a row become one."""
    assert ops(make_reference(padded_shortcut(), "net")).count("Slice") == 1


def test_constant_nodes_dropouts_and_input_initialisers() -> None:
    """Constants become initialisers, dropouts go, and an initialiser is no graph input any more."""
    model = chain()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "b.weight")
    model.graph.initializer.remove(weight)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["b.weight"], value=weight))
    last = model.graph.node[-1]
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Dropout", [last.input[0]], ["dropped"]))
    model.graph.node[-1].input[0] = "dropped"
    model.graph.input.append(helper.make_tensor_value_info("a.weight", TensorProto.FLOAT, (16, 16, 3, 3)))
    reference = make_reference(model, "net")
    assert ops(reference) == ["Conv", "Relu", "Conv", "Relu", "Conv"]
    assert list(reference.input_shapes) == ["x"]
    assert reference.fixed_batch is None


def test_older_opset_is_converted() -> None:
    """A network of opset 13 is brought to opset 21."""
    net = Net()
    net.conv("x", "a", (16, 16))
    assert make_reference(net.model(["a"], opset=13), "net").proto.opset_import[0].version == 21


def test_an_input_without_a_shape_is_named(tmp_path: Path) -> None:
    """Where the samples are cannot be told of an input that does not say how many axes it has."""
    net = Net(("n", 4))
    net.op("Relu", ["x"], "y")
    model = net.model(["y"])
    model.graph.input[0].type.tensor_type.ClearField("shape")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="input 'x' declares no shape"):
        load_reference(tmp_path / "net.onnx")


@pytest.mark.parametrize("inner", [False, True], ids=["graph", "body"])
def test_nodes_out_of_order_are_sorted(inner: bool, tmp_path: Path) -> None:
    """Some converters append nodes to the end of the list; runtimes sort them, and so does reading."""
    nodes = [
        helper.make_node("Add", ["m", "h"], ["y"]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Neg", ["h"], ["m"]),
    ]
    value = helper.make_tensor_value_info
    ends = [value("y", TensorProto.FLOAT, ("n", 4))]
    if inner:
        body = helper.make_graph(nodes, "body", [], ends)
        nodes = [helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)]
        nodes.append(
            helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
        )
    weight = numpy_helper.from_array(np.arange(16, dtype=np.float32).reshape(4, 4), "w")
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, ("n", 4))], ends, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    found = load_reference(tmp_path / "net.onnx")
    assert found.given == model
    np.testing.assert_array_equal(run(found.proto, {"x": np.ones((2, 4), np.float32)})[0], np.zeros((2, 4)))


def test_group_norm_below_21_is_read(tmp_path: Path) -> None:
    """GroupNormalization of opsets 18 to 20 is deprecated, and runtimes have it all the same."""
    net = Net(("n", 4, 6, 6))
    for name in ("s", "t"):
        net.constant(name, np.array([0.5, 2.0], np.float32))
    net.nodes.append(helper.make_node("GroupNormalization", ["x", "s", "t"], ["g"], num_groups=2))
    model = net.model(["g"])
    model.opset_import[0].version = 18
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("g", TensorProto.FLOAT, ("n", 4, 6, 6)))
    onnx.save(model, tmp_path / "net.onnx")
    inputs = {"x": np.random.default_rng(0).normal(size=(2, 4, 6, 6)).astype(np.float32)}
    found = load_reference(tmp_path / "net.onnx").proto
    np.testing.assert_allclose(run(found, inputs)[0], run(model, inputs)[0], rtol=1e-5, atol=1e-5)


def test_global_means_become_global_average_pools() -> None:
    """AveragePool over the whole map and ReduceMean over all positions are GlobalAveragePool, flattened if need be."""
    net = Net()
    net.op("AveragePool", ["x"], "a", kernel_shape=[12, 12])
    axes = net.constant("axes", np.array([-1, -2], np.int64))
    net.op("ReduceMean", ["x", axes], "b", keepdims=1)
    net.op("AveragePool", ["x"], "c", kernel_shape=[3, 3])
    net.op("ReduceMean", ["x", axes], "d", keepdims=0)
    model = net.model(["a", "b", "c", "d"])
    reference = make_reference(model, "net")
    assert ops(reference) == ["GlobalAveragePool", "GlobalAveragePool", "AveragePool", "GlobalAveragePool", "Flatten"]
    inputs = inputs_of(reference)
    for wanted, found in zip(run(model, inputs), run(reference.proto, inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_fingerprints() -> None:
    """The fingerprint follows the weights' values, the architecture digest does not; both follow the graph."""
    first, model = make_reference(chain(), "one"), chain()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "b.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), "b.weight"))
    tuned = make_reference(model, "two")
    other = reference_of("residual")
    assert make_reference(chain(), "three").fingerprint == first.fingerprint
    assert tuned.fingerprint != first.fingerprint
    assert tuned.architecture == first.architecture
    assert other.architecture != first.architecture


@pytest.mark.parametrize(
    ("content", "match"),
    [
        pytest.param(None, "no model file", id="missing"),
        pytest.param(b"", "its graph is empty", id="empty"),
        pytest.param(b"not an onnx file at all", "no readable ONNX file", id="text"),
        pytest.param(chain().SerializeToString()[:-4000], "no readable ONNX file", id="truncated"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes | None, match: str) -> None:
    """Each kind of bad file has its own message, with the path."""
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=match) as caught:
        load_reference(path)
    assert str(path) in caught.value.message


def test_external_data(tmp_path: Path) -> None:
    """External data beside the model loads; outside its folder, missing or truncated it is refused by name."""
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "net.onnx"
    onnx.save(chain(), str(path), save_as_external_data=True, location="net.data", size_threshold=64)
    assert load_reference(path).fingerprint == make_reference(chain(), "net").fingerprint
    data = folder / "net.data"
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="external data of tensor"):
        load_reference(path)
    data.rename(tmp_path / "net.data")
    with pytest.raises(ModelError, match=r"'net.data', which is missing"):
        load_reference(path)
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../net.data"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"'../net.data', outside the model's folder"):
        load_reference(path)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "link.data"
    (tmp_path / "net.data").write_bytes(content)
    (folder / "link.data").symlink_to(tmp_path / "net.data")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_reference(path)


def test_torch_export_with_dynamic_and_fixed_batch() -> None:
    """A module exports with either batch; layers are named by module path; its training mode is kept."""
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten())
    module.train()
    inputs = {"image": np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)}
    dynamic = export_reference(module, inputs, name="net")
    fixed = export_reference(module, inputs, name="net", batch=3)
    assert module.training
    assert dynamic.input_shapes == {"image": (None, 3, 8, 8)}
    assert fixed.input_shapes == {"image": (3, 3, 8, 8)}
    assert fixed.fixed_batch == 3
    assert dynamic.proto.graph.node[0].input[1] == "0.weight"
    assert ops(dynamic)[:2] == ["Conv", "Relu"]
    module.eval()
    with torch.no_grad():
        wanted = module(torch.from_numpy(inputs["image"])).numpy()
    np.testing.assert_allclose(run(dynamic.proto, inputs)[0], wanted, rtol=1e-4, atol=1e-5)


def test_module_that_cannot_be_exported() -> None:
    """A failing export names the workload and says what to try."""
    import torch

    class Opaque(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    class Broken(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            raise OSError("no table of words")

    class Leaving(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            sys.exit(3)

    inputs = {"x": np.ones((2, 3), np.float32)}
    with pytest.raises(ModelError, match=r"workload 'opaque': PyTorch could not export .* dynamic batch"):
        export_reference(Opaque(), inputs, name="opaque")
    with pytest.raises(ModelError, match=r"a dynamic batch \(OSError: no table of words\)"):
        export_reference(Broken(), inputs, name="broken")
    with pytest.raises(ModelError, match=r"batch 2 \(SystemExit: 3\)"):
        export_reference(Leaving(), inputs, name="leaving", batch=2)
