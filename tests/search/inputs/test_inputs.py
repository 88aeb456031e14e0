"""Arrays and workloads: what fits passes unchanged or exactly cast, and nothing is evaluated too early."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from numpy.typing import DTypeLike

from bitfront.core import Array, DataError, Inputs, Labelled, Metric, UsageError, WorkloadError, top1
from bitfront.search.inputs.arrays import cast, check_classes, check_inputs
from bitfront.search.inputs.data.archive import read_npz
from bitfront.search.inputs.loading import batch_size, load, open_source
from bitfront.search.inputs.source import Source
from bitfront.search.inputs.workloads import load_metric, load_workload
from tests.references import load_reference
from tests.search.command_line import Files, enter, labels, network, samples, write_files, write_npz


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    enter(tmp_path, monkeypatch)
    return write_files(tmp_path)


def source_of(files: Files, metric: str | None = None) -> Source:
    return Source(model=files.net, calibration=str(files.calib), evaluation=str(files.eval), metric=metric)


def test_files_arrive_as_they_are(files: Files) -> None:
    """A fitting file's arrays are the workload's arrays, bit for bit."""
    workload, reference = load(open_source(source_of(files)), None)
    assert workload.name == "net"
    assert workload.model == files.net
    assert workload.metric is top1
    np.testing.assert_array_equal(workload.calibration["input"], samples(16))
    np.testing.assert_array_equal(workload.evaluation.inputs["input"], samples())
    np.testing.assert_array_equal(workload.evaluation.labels, labels())
    assert reference.source == str(files.net)


def test_calibration_may_be_labelled(files: Files) -> None:
    """One labelled file may serve as calibration data too: its labels are not looked at."""
    files.write_calib(input=samples(16), labels=np.full(16, -7))
    assert set(load(open_source(source_of(files)), None)[0].calibration) == {"input"}


@pytest.mark.parametrize(
    ("got", "expected", "values"),
    [
        ("float64", "float32", [0.5, -2.0]),
        ("float16", "float32", [0.5, -2.0]),
        ("int32", "int64", [1, -2]),
        ("int64", "int32", [1, -2]),
        ("uint8", "int64", [1, 200]),
    ],
)
def test_casts_that_keep_values(got: DTypeLike, expected: str, values: list[float]) -> None:
    """Casts that keep every value are made silently."""
    found = cast(np.array(values, dtype=got), expected, "x")
    assert found.dtype.name == expected
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("got", "expected", "values"),
    [
        ("int64", "int32", [2**40]),
        ("int64", "uint8", [-1]),
        ("float32", "int64", [1.5]),
        ("uint8", "float32", [200]),
        ("bool", "float32", [True]),
        ("float32", "float16", [0.5]),
        ("complex64", "float32", [1j]),
    ],
)
def test_casts_that_do_not(got: DTypeLike, expected: str, values: list[float]) -> None:
    """Casts that could lose something, or hide a missing scaling, are refused with both types."""
    with pytest.raises(DataError, match=f"x: expected dtype {expected}, got {got}"):
        cast(np.array(values, dtype=got), expected, "x")


def two_inputs() -> onnx.ModelProto:
    """A + b of (n, 3)."""
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in ("a", "b")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["a", "b"], ["sum"])],
        "two",
        inputs,
        [onnx.helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, ["n", 3])],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


def test_several_inputs(files: Files) -> None:
    """Arrays come in the network's order; different numbers of samples are refused with each number."""
    onnx.save(two_inputs(), files.net)
    reference = load_reference(files.net)
    four, five = np.zeros((4, 3), np.float32), np.zeros((5, 3), np.float32)
    assert list(check_inputs({"b": four, "a": four}, reference, "x.npz")) == ["a", "b"]
    with pytest.raises(DataError, match="'a' 4, 'b' 5"):
        check_inputs({"b": five, "a": four}, reference, "x.npz")
    with pytest.raises(DataError, match=r"expected arrays named 'a', 'b' .* got 'a'"):
        check_inputs({"a": four}, reference, "x.npz")


def test_classes_without_a_bound() -> None:
    """Where the number of classes is unknown any label from 0 on passes, and a negative one does not."""
    check_classes(np.array([0, 10**6]), None, "x.npz", use="top1")
    with pytest.raises(DataError, match="expected 0 or more, got -3 to 2"):
        check_classes(np.array([-3, 2]), None, "x.npz", use="top1")


def test_damage_anywhere_in_an_archive(tmp_path: Path) -> None:
    """An archive cut at any place, or with a flipped byte in its data, is refused: never a shorter array."""
    path = tmp_path / "x.npz"
    write_npz(path, {"input": samples(2)})
    whole = path.read_bytes()
    for stop in range(0, len(whole), 97):
        path.write_bytes(whole[:stop])
        with pytest.raises(DataError, match=r"x\.npz"):
            read_npz(path, ("input",))
    flipped = bytearray(whole)
    flipped[600] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(DataError, match=r"x\.npz"):
        read_npz(path, ("input",))


@pytest.mark.parametrize(
    ("fixed", "asked", "wish", "expected"),
    [("n", None, None, 1), ("n", None, 5, 5), ("n", 3, 5, 3), (4, None, 5, 4), (4, 4, None, 4)],
)
def test_batch_size(files: Files, fixed: int | str, asked: int | None, wish: int | None, expected: int) -> None:
    """A fixed batch rules, then the option, then the workload's wish, then one."""
    onnx.save(network(batch=fixed), files.net)
    workload, reference = load(open_source(source_of(files)), asked)
    wishing = type(workload)(
        name="x",
        model=files.net,
        calibration=workload.calibration,
        evaluation=workload.evaluation,
        metric=top1,
        batch_size=wish,
    )
    assert batch_size(asked, wishing, reference) == expected


def test_batch_size_beyond_the_data(files: Files) -> None:
    """A batch that the data cannot fill is refused."""
    workload, reference = load(open_source(source_of(files)), None)
    with pytest.raises(DataError, match="--batch-size: 17 is more than the 16 samples"):
        batch_size(17, workload, reference)


class Lazy:
    """A workload whose expensive parts count how often they are read."""

    name = "lazy"
    metric: Metric = top1
    batch_size = 8
    reads: ClassVar[list[str]] = []

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def model(self) -> Path:
        self.reads.append("model")
        return self._path

    @property
    def calibration(self) -> Inputs:
        self.reads.append("calibration")
        return {"input": samples(16)}

    @property
    def evaluation(self) -> Labelled:
        self.reads.append("evaluation")
        return Labelled(inputs={"input": samples()}, labels=labels())


MINE = """
from pathlib import Path
from tests.search.inputs.test_inputs import Lazy
from tests.references import load_reference
workload = Lazy(Path("net.onnx"))
def make(data):
    assert data is None or data.is_dir()
    return workload
def bare():
    return workload
class Inner:
    workload = workload
def score(outputs, labels):
    return 0.5
"""


@pytest.mark.parametrize("attribute", ["workload", "make", "bare", "Inner.workload"])
def test_workload_by_name(attribute: str, files: Files) -> None:
    """A module beside the person is found; an object or a function serves; nothing is read before it is needed."""
    Path("mine.py").write_text(MINE)
    opened = open_source(Source(workload=f"mine:{attribute}"))
    from tests.search.inputs.test_inputs import Lazy as Imported

    Imported.reads.clear()
    assert opened.name == "lazy"
    assert Imported.reads == []
    workload, reference = load(opened, None)
    assert workload.batch_size == 8
    assert len(workload.evaluation) == len(labels())
    assert reference.source == str(files.net.name)
    assert Imported.reads.count("evaluation") == 1


def test_data_reaches_a_function_only(files: Files) -> None:
    """``--data`` is passed to a function that takes it, and refused where it would be ignored."""
    Path("mine.py").write_text(MINE)
    assert load_workload("mine:make", files.folder).name == "lazy"
    with pytest.raises(WorkloadError, match="--data: workload 'mine:workload' is no callable"):
        load_workload("mine:workload", files.folder)
    with pytest.raises(WorkloadError, match="--data: 'mine:bare' takes no arguments"):
        load_workload("mine:bare", files.folder)


def test_own_metric(files: Files) -> None:
    """A metric is a function by name."""
    Path("mine.py").write_text(MINE)
    opened = open_source(source_of(files, metric="mine:score"))
    found = opened.metric((np.zeros((2, 2)),), np.zeros(2))
    assert found == 0.5
    assert load_metric("top1") is top1


def test_own_metric_takes_any_output(files: Files) -> None:
    """A network that is no classifier is welcome with a metric that reads its output, and any labels."""
    Path("mine.py").write_text(MINE)
    onnx.save(network(pooled=False), files.net)
    maps: Array = np.zeros((40, 8, 8), np.float32)
    files.write_eval(input=samples(), labels=maps)
    workload, _ = load(open_source(source_of(files, metric="mine:score")), None)
    assert workload.evaluation.labels.shape == (40, 8, 8)


def test_a_source_is_one_thing() -> None:
    """A source is a file or an object, never both."""
    with pytest.raises(UsageError, match="--workload cannot be combined with --model"):
        Source(model=Path("x"), workload="a:b")
