"""The zoo: its networks are what they say, its measures are right, and a few of them are searched here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfront.backends import TimingSettings
from bitfront.core import DataError, LatencyStats
from bitfront.experiments.zoo.__main__ import main
from bitfront.experiments.zoo.collection import ZOO
from bitfront.experiments.zoo.coverage import coverage_of, weight_count
from bitfront.experiments.zoo.examine import Examined, QuantisedModel, Settings, examine
from bitfront.experiments.zoo.fidelity import agreement, fidelity, labels_of, sqnr_db
from bitfront.experiments.zoo.network import ZooNetwork
from bitfront.experiments.zoo.published import PUBLISHED
from bitfront.experiments.zoo.table import COLUMNS, as_csv, as_markdown, losses, rows
from bitfront.experiments.zoo.tiny import TINY

# One thing that is searched, one that is stored smaller, one whose layers stand in branches.
SEARCHED = ("perceptron", "looked-up", "branches")
QUICK = Settings(
    calibration=4, evaluation=6, trials=3, sensitivity_samples=2,
    timing=TimingSettings(slot_ms=1.0, min_rounds=4, max_rounds=6, max_seconds_per_model=0.2),
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # quantize_static reads a module of numpy's
@pytest.mark.parametrize("name", SEARCHED)
def test_a_network_is_searched_and_compared(name: str, tmp_path: Path) -> None:
    """The search ends well, and what it makes stands beside the given file and other tools' versions."""
    found = examine(ZOO[name], tmp_path, tmp_path, QUICK)
    assert found.exit_code == 0, found.said
    versions = {artifact.name: artifact for artifact in found.artifacts}
    assert {"given", "recommended", "quantize_static", "quantize_dynamic"} <= set(versions)
    assert versions["given"].sqnr_db == np.inf
    assert versions["recommended"].sqnr_db > 15
    assert found.coverage is not None
    assert found.coverage.searchable > 0
    assert found.problems == ()


def test_names_are_unique() -> None:
    """Each network can be asked for by name."""
    assert len(ZOO) == len({network.name for network in ZOO.values()}) >= 40


@pytest.mark.parametrize("network", TINY, ids=[network.name for network in TINY])
def test_inputs_fit(network: ZooNetwork, tmp_path: Path) -> None:
    """A network takes its own samples, one at a time; they differ, and are the same for the same seed."""
    session = onnxruntime.InferenceSession(network.model(tmp_path))
    one, other = network.feeds(2, seed=1)
    assert all(np.isfinite(array).all() for array in session.run(None, dict(one)))
    assert any(not np.array_equal(one[name], other[name]) for name in one)
    again = network.feeds(2, seed=1)[0]
    assert all(np.array_equal(one[name], again[name]) for name in one)


def test_samples_are_joined_along_their_own_axes() -> None:
    """States have samples on axis 1, and a shared value is there once."""
    network = ZOO["recurrent"]
    joined = network.stacked(network.feeds(5, seed=0))
    assert {name: array.shape for name, array in joined.items()} == {"x": (6, 5, 8), "h": (1, 5, 16)}
    assert ZOO["branches"].stacked(ZOO["branches"].feeds(5, seed=0))["flag"].shape == ()


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    """Without scripts/zoo-env a published network says what to run."""
    with pytest.raises(DataError, match=r"no file '.*silero_vad\.onnx'"):
        PUBLISHED[0].model(tmp_path)


def test_fidelity_is_one_minus_noise_over_signal() -> None:
    """By hand: outputs 3, 4 with an error of 1 on the first; a second output, samples on axis 1, without any."""
    wanted = [[np.array([[3.0, 4.0]]), np.ones((2, 1, 1))], [np.array([[3.0, 4.0]]), np.ones((2, 1, 1))]]
    labels = labels_of(wanted)
    found = (np.array([[4.0, 4.0], [3.0, 4.0]]), np.ones((2, 2, 1)))
    np.testing.assert_allclose(fidelity(found, labels), [1 - 0.5 / 25, 1.0])
    np.testing.assert_allclose(fidelity((100 * found[0], 0 * found[1]), labels), 0)


def test_sqnr_and_agreement() -> None:
    """A hundredth of the power is 20 dB, of the worst output; agreement counts rows."""
    one = [[np.array([[10.0, 0.0]]), np.array([1.0])], [np.array([[0.0, 10.0]]), np.array([1.0])]]
    other = [[np.array([[11.0, 0.0]]), np.array([1.0])], [np.array([[1.0, 0.0]]), np.array([1.0])]]
    assert sqnr_db(one[:1], other[:1]) == pytest.approx(20)
    assert agreement(one, other) == 0.5
    assert sqnr_db(one, one) == np.inf
    assert agreement([[np.array([1.0])]], [[np.array([2.0])]]) is None


def test_weights_of_subgraphs_count(tmp_path: Path) -> None:
    """Coverage is of all weights; of those in branches a search decides how layers' are stored."""
    path = tmp_path / "net.onnx"
    path.write_bytes(ZOO["branches"].model(tmp_path))
    found = coverage_of(path)
    assert (found.weights, found.searchable, found.layers) == (
        16 * 32 + 32 + 32 * 4 + 16 * 4,
        16 * 32 + 32 * 4 + 16 * 4,
        3,
    )
    assert found.left_alone == {}


def test_constants_of_nodes_are_weights() -> None:
    """Weights that stand in Constant nodes count like initialisers."""
    tensor = numpy_helper.from_array(np.ones((2, 3), np.float32))
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor), helper.make_node("MatMul", ["x", "c"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )
    assert weight_count(onnx.helper.make_model(graph)) == 6


def _artifact(name: str, ratio: float, size: int, db: float) -> QuantisedModel:
    latency = LatencyStats(
        median_ms=ratio, p90_ms=ratio, ci_low_ms=ratio, ci_high_ms=ratio, ratio=ratio, ratio_low=ratio - 0.05,
        ratio_high=ratio + 0.05, rounds=9, threads=1, batch_size=1,
    )  # fmt: skip
    return QuantisedModel(name=name, size_bytes=size, latency=latency, sqnr_db=db, agreement=None)


def _examined(*artifacts: QuantisedModel) -> Examined:
    return Examined(
        network="net", exit_code=0, seconds=1.0, said="", text="int8 ×2", coverage=None, artifacts=artifacts,
        problems=("a | b",),
    )  # fmt: skip


def test_a_cell_is_lost_to_a_peer_that_is_as_faithful() -> None:
    """Outside the interval and within the drop; a peer beyond the drop and worse than ours beats nobody."""
    ours = _artifact("recommended", 0.7, 100, 30.0)
    assert losses(_examined(ours, _artifact("quantize_static", 0.55, 90, 25.0)), 0.01) == {
        "recommended": ["slower than quantize_static", "larger than quantize_static"]
    }
    assert losses(_examined(ours, _artifact("quantize_static", 0.65, 100, 25.0)), 0.01) == {}
    assert losses(_examined(ours, _artifact("quantize_static", 0.1, 10, 5.0)), 0.01) == {}


def test_tables_say_what_is_lost() -> None:
    """A row a version; a lost cell is marked, problems stand once, and bars are kept out of Markdown's way."""
    found = _examined(_artifact("recommended", 0.7, 100, 30.0), _artifact("quantize_static", 0.5, 90, 30.0))
    table = rows([found], 0.01)
    lost, problems = COLUMNS.index("lost"), COLUMNS.index("problems")
    assert [row[lost] for row in table] == ["LOST: slower than quantize_static; larger than quantize_static", ""]
    assert [row[problems] for row in table] == ["a | b", ""]
    assert as_csv(table).splitlines()[0] == ",".join(COLUMNS)
    assert "a \\| b" in as_markdown(table)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown names are refused, networks are listed, and what was found is written as it goes."""
    assert main(["nobody"]) == 2
    assert "no network 'nobody'" in capsys.readouterr().err
    assert main(["--list"]) == 0
    assert "silero-vad" in capsys.readouterr().out
    found = _examined(_artifact("given", 1.0, 100, np.inf))
    monkeypatch.setattr("bitfront.experiments.zoo.__main__.examine", lambda *args: found)  # noqa: ARG005
    assert main(["perceptron", "--out", str(tmp_path)]) == 0
    assert "net,0,1" in (tmp_path / "zoo.csv").read_text(encoding="utf-8")
    assert "| net | 0 | 1 |" in (tmp_path / "zoo.md").read_text(encoding="utf-8")
