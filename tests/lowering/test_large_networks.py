"""Networks with detached weights, shown on small ones with lowered limits: the same artifacts, no copies, two files."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bitfront.backends.base import CompiledModel
from bitfront.backends.ort.session import SessionModel
from bitfront.backends.registry import get_backend
from bitfront.core import FP32, CalibrationSettings, ContentStore, LoweringError, ModelError, Scheme
from bitfront.core.artifact import load_artifact, save_artifact
from bitfront.core.blob import FileRange
from bitfront.lowering import weight_files
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.equivalence import equivalent_to_given
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.serialise import artifact_of, file_of
from bitfront.lowering.shapes import infer_shapes
from bitfront.lowering.weight_files import has_detached, is_detached, stored_bytes, tensor_array
from bitfront.search.commands.measure import read_model
from tests.references import load_reference

WIDTH = 64
INPUTS = {"x": np.random.default_rng(1).standard_normal((8, WIDTH)).astype(np.float32)}


@pytest.fixture
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks from 8 kB on are large."""
    monkeypatch.setattr(weight_files, "DETACHED_NETWORK", 8_000)
    monkeypatch.setattr(weight_files, "DETACHED_TENSOR", 4_000)


def _decoder(
    *, opset: int = 21, kind: type[np.generic] = np.float32, width: int = WIDTH, layers: int = 4
) -> onnx.ModelProto:
    """Matrix products with residual sums, the last one of twenty columns; 71 kB by default."""
    generator, layers = np.random.default_rng(0), 4
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    weights = {"head": (width, 20), "b": (width,)} | {f"w{layer}": (width, width) for layer in range(layers)}
    tensors = [
        numpy_helper.from_array((generator.standard_normal(shape) / np.sqrt(width)).astype(kind), name)
        for name, shape in weights.items()
    ]
    nodes, last = [], "x"
    for layer in range(layers):
        nodes += [
            helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"], name=f"layer{layer}"),
            helper.make_node("Add", [f"m{layer}", "b"], [f"a{layer}"], name=f"add{layer}"),
            helper.make_node("Relu", [f"a{layer}"], [f"r{layer}"], name=f"relu{layer}"),
            helper.make_node("Add", [last, f"r{layer}"], [f"s{layer}"], name=f"sum{layer}"),
        ]
        last = f"s{layer}"
    nodes.append(helper.make_node("MatMul", [last, "head"], ["y"], name="head"))
    graph = helper.make_graph(
        nodes,
        "decoder",
        [helper.make_tensor_value_info("x", element, ["n", width])],
        [helper.make_tensor_value_info("y", element, ["n", 20])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _saved(model: onnx.ModelProto, folder: Path, *, external: bool) -> Path:
    path = folder / "net.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    if external:
        onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=1024)
    else:
        onnx.save(model, path)
    return path


def _lowerer(path: Path) -> Lowerer:
    reference = equivalent_to_given(load_reference(path), INPUTS)
    return Lowerer(reference, get_dialect("ort-cpu"), INPUTS, CalibrationSettings(), ContentStore(None))


def _artifacts(path: Path) -> dict[str, bytes]:
    """Scheme → the file of the network with as many layers at it as offer it."""
    lowerer = _lowerer(path)
    texts = ("fp32", "fp16", "int8:mse", "int4:gptq", "int8:mse:weight-only")
    found = {}
    for text in texts:
        wanted = Scheme.parse(text)
        schemes = {layer.name: wanted if wanted in layer.schemes else FP32 for layer in lowerer.quantisable.layers}
        artifact = lowerer.lower(schemes)
        assert list(artifact.files) == [artifact.main]
        found[text] = artifact.data
    return found


@pytest.mark.parametrize("external", [False, True], ids=["one-file", "external"])
@pytest.mark.parametrize(
    "options", [{}, {"opset": 13}, {"kind": np.float16}, {"kind": np.float64}], ids=["fp32", "opset13", "fp16", "fp64"]
)
def test_same_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], external: bool
) -> None:
    """Fingerprints and every written file are the same whether weights are detached or not."""
    path = _saved(_decoder(**options), tmp_path, external=external)  # type: ignore[arg-type]
    if options:
        monkeypatch.setitem(INPUTS, "x", INPUTS["x"].astype(options.get("kind", np.float32)))  # type: ignore[call-overload]
    whole, files = load_reference(path), _artifacts(path)
    monkeypatch.setattr(weight_files, "DETACHED_NETWORK", 8_000)
    monkeypatch.setattr(weight_files, "DETACHED_TENSOR", 4_000)
    detached = load_reference(path)
    assert has_detached(detached.proto)
    assert not has_detached(whole.proto)
    assert (detached.fingerprint, detached.architecture) == (whole.fingerprint, whole.architecture)
    assert whole.given is not None
    assert detached.given is not None
    assert artifact_of(detached.given).digest == artifact_of(whole.given).digest
    assert _artifacts(path) == files


@pytest.mark.usefixtures("_small_limits")
@pytest.mark.parametrize("text", ["fp32", "fp16", "int8:mse", "int4:gptq"])
def test_two_files_beyond_the_limit(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large for one file is written as two, and runs alike before it is saved, after, and joined."""
    monkeypatch.setattr(weight_files, "LIMIT", 20_000)
    lowerer = _lowerer(_saved(_decoder(), tmp_path, external=True))
    wanted = Scheme.parse(text)
    schemes = {layer.name: wanted if wanted in layer.schemes else FP32 for layer in lowerer.quantisable.layers}
    schemes["layer0"] = FP32
    artifact = lowerer.lower(schemes)
    assert len(artifact.files) == 2
    assert lowerer.lower(schemes).digest == artifact.digest
    saved = tmp_path / "out" / "point.onnx"
    save_artifact(artifact, saved)
    loaded = load_artifact(saved)
    feeds = {"x": np.random.default_rng(2).standard_normal((3, WIDTH)).astype(np.float32)}
    backend = get_backend("ort-cpu")
    one, other = (backend.compile(each, threads=1).run(feeds)[0] for each in (artifact, loaded))
    np.testing.assert_array_equal(one, other)
    whole = onnx.load(saved)  # onnx's own reading of external data
    (plain,) = backend.compile(artifact_of(whole), threads=1).run(feeds)
    np.testing.assert_array_equal(one, plain)
    assert backend.compile(loaded, threads=1).operators()


def _session_setting(model: CompiledModel, key: str) -> str:
    """A setting of a model's session; empty where it is not set."""
    assert isinstance(model, SessionModel)
    try:
        return str(model._session.get_session_options().get_session_config_entry(key))
    except RuntimeError:
        return ""


@pytest.mark.usefixtures("_small_limits")
def test_scoring_computes_on_mapped_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy backend makes no copies of weights that lie beside a model, and answers the same; of others it does."""
    backend, setting = get_backend("ort-cpu"), "session.disable_prepacking"
    lowerer = _lowerer(_saved(_decoder(), tmp_path, external=True))
    schemes = {layer.name: FP32 for layer in lowerer.quantisable.layers}
    joined = lowerer.lower(schemes)
    monkeypatch.setattr(weight_files, "LIMIT", 20_000)
    apart = lowerer.lower(schemes)
    set_in: dict[int, list[bool]] = {}
    for artifact in (joined, apart):
        models = [each.compile(artifact, threads=1) for each in (backend, backend.proxy_backend())]
        set_in[len(artifact.files)] = [_session_setting(model, setting) == "1" for model in models]
        one, other = (np.asarray(model.run(INPUTS)[0], np.float32) for model in models)
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    assert set_in == {1: [False, False], 2: [False, True]}


@pytest.mark.usefixtures("_small_limits")
def test_candidates_are_told_apart_without_reading_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that candidates share are digested once."""
    monkeypatch.setattr(weight_files, "LIMIT", 20_000)
    lowerer = _lowerer(_saved(_decoder(), tmp_path, external=True))
    schemes = {layer.name: FP32 for layer in lowerer.quantisable.layers}
    first = lowerer.lower(schemes).digest
    read: list[FileRange] = []
    blocks = FileRange.blocks

    def noted(part: FileRange) -> Iterator[bytes]:
        read.append(part)
        return blocks(part)

    monkeypatch.setattr(FileRange, "blocks", noted)
    assert lowerer.lower(schemes).digest == first
    assert lowerer.lower(schemes | {"layer1": Scheme.parse("int8:mse")}).digest != first
    assert read == []


@pytest.mark.usefixtures("_small_limits")
def test_file_that_was_given_is_measured_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``search measure`` reads a model beyond the limit without joining its files."""
    path = _saved(_decoder(), tmp_path, external=True)
    joined = read_model(path)
    monkeypatch.setattr(weight_files, "LIMIT", 20_000)
    apart = read_model(path)
    assert (len(joined.files), len(apart.files)) == (1, 2)
    backend = get_backend("ort-cpu")
    one, other = (backend.compile(each, threads=1).run(INPUTS)[0] for each in (joined, apart))
    np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("_small_limits")
def test_stored_form(tmp_path: Path) -> None:
    """Sizes, files and shapes of a detached model are those of the whole one, and nothing large is in memory."""
    model = _decoder()
    reference = load_reference(_saved(model, tmp_path, external=False))
    proto = reference.given
    assert proto is not None
    assert sum(map(is_detached, proto.graph.initializer)) == 5
    assert len(proto.SerializeToString()) < 8_000
    assert bytes(file_of(proto)) == model.SerializeToString(deterministic=True)
    assert bytes(file_of(infer_shapes(proto))) == onnx.shape_inference.infer_shapes(model).SerializeToString(
        deterministic=True
    )
    for detached, whole in zip(proto.graph.initializer, model.graph.initializer, strict=True):
        assert stored_bytes(detached) == whole.ByteSize()
        np.testing.assert_array_equal(tensor_array(detached), numpy_helper.to_array(whole))


@pytest.mark.usefixtures("_small_limits")
def test_file_is_gone_with_the_network(tmp_path: Path) -> None:
    """What was moved to a temporary file does not outlive the network."""
    reference = load_reference(_saved(_decoder(), tmp_path, external=False))
    assert reference.weights is not None
    path = reference.weights.path
    assert path.stat().st_size >= 4 * 4 * WIDTH**2
    del reference
    assert not path.exists()


@pytest.mark.usefixtures("_small_limits")
@pytest.mark.parametrize("cut", [9_000, 40_000])
def test_truncated_file(tmp_path: Path, cut: int) -> None:
    """A large file that ends early is no readable ONNX file."""
    path = _saved(_decoder(), tmp_path, external=False)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match="is no readable ONNX file"):
        load_reference(path)


@pytest.mark.usefixtures("_small_limits")
def test_weight_of_another_size_than_its_shape(tmp_path: Path) -> None:
    """Refused, with both sizes."""
    model = _decoder()
    model.graph.initializer[2].dims[0] = WIDTH - 1
    with pytest.raises(ModelError, match=r"'w0' of shape \(63, 64\) takes 16,128 bytes, but its data has 16,384"):
        load_reference(_saved(model, tmp_path, external=False))


@pytest.mark.usefixtures("_small_limits")
def test_graph_that_is_too_large_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two files are no help where the graph alone is beyond the limit."""
    reference = load_reference(_saved(_decoder(), tmp_path, external=True))
    monkeypatch.setattr(weight_files, "LIMIT", 1_000)
    with pytest.raises(LoweringError, match="the graph alone takes"):
        artifact_of(reference.proto)


def test_one_copy_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a network of 50 MB, reading its layers and digesting its FP32 form allocates a fraction of it."""
    path = _saved(_decoder(width=1792), tmp_path, external=False)
    monkeypatch.setattr(weight_files, "DETACHED_NETWORK", 2**20)
    tracemalloc.start()
    try:
        reference = load_reference(path)
        lowerer = Lowerer(reference, get_dialect("ort-cpu"), None, CalibrationSettings(), ContentStore(None))
        artifact = lowerer.lower({layer.name: FP32 for layer in lowerer.quantisable.layers})
        assert artifact.digest
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert artifact.size_bytes > 50_000_000
    assert peak < 0.3 * artifact.size_bytes
    assert has_detached(reference.proto)
