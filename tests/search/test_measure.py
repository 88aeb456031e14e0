"""``search measure``: what it tells of memory and of operators, as far as the runtime tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfront.backends import registry
from bitfront.backends.base import CompiledModel, ExecutedLayer
from bitfront.backends.fake import FakeBackend, FakeModel
from bitfront.core import Artifact, MemoryUsage
from bitfront.search.commands.measure import FOOTPRINT_COLUMNS, PROFILE_COLUMNS, profile_rows
from tests.search.command_line import outcome, write_files


class _TellingModel(FakeModel):
    def memory_usage(self) -> MemoryUsage:
        return MemoryUsage(engine_bytes=12_000, activation_bytes=300)


class TellingBackend(FakeBackend):
    """Tells what its models take."""

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
        """As the fake one."""
        compiled = super().compile(artifact, threads=threads, batch_size=batch_size)
        compiled.__class__ = _TellingModel
        return compiled


def _layer(name: str, nodes: tuple[str, ...], latency_us: float | None) -> ExecutedLayer:
    return ExecutedLayer(name=name, kind="Conv", precision="fp32", nodes=nodes, detail="", latency_us=latency_us)


def test_profile_rows_name_the_artifacts_nodes() -> None:
    """Nodes where they are known, shares of what was timed, dashes for what is not told."""
    layers = [_layer("fused_1", ("conv1", "relu1"), 30.0), _layer("copy", (), 10.0), _layer("view", (), None)]
    assert profile_rows(layers) == [
        ("conv1, relu1", "Conv", "fp32", "–", "30.0", "75.0%"),
        ("copy", "Conv", "fp32", "–", "10.0", "25.0%"),
        ("view", "Conv", "fp32", "–", "–", "–"),
    ]


def test_profile_lists_what_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Operators of every model with their times, on a runtime that tells them."""
    net = str(write_files(tmp_path).net)
    assert outcome(["measure", net, net, "--profile"]) == 0
    said = capsys.readouterr().out
    listing = said[said.index("interleaved rounds") :]
    assert [line for line in listing.splitlines() if line.endswith(".onnx:")] == [f"{net}:"]
    assert f"{net} (2):" in listing
    assert all(column in listing for column in PROFILE_COLUMNS)
    assert "Conv" in listing
    assert "CPUExecutionProvider" in listing


def test_profile_of_a_runtime_that_tells_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so; without the option nothing is said about operators, and without footprints nothing of memory."""
    net = str(write_files(tmp_path).net)
    assert outcome(["measure", net, "--backend", "fake", "--profile"]) == 0
    assert f"{net}:\nfake does not tell what it runs\n" in capsys.readouterr().out
    assert outcome(["measure", net, "--backend", "fake"]) == 0
    said = capsys.readouterr().out
    assert "does not tell" not in said
    assert not set(FOOTPRINT_COLUMNS) & set(said.split())


def test_footprints_are_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a compiled model takes stands beside its file's size."""
    monkeypatch.setattr(registry, "get_backend", lambda _: TellingBackend())
    assert outcome(["measure", str(write_files(tmp_path).net), "--backend", "fake"]) == 0
    header, row, *_ = capsys.readouterr().out.splitlines()
    assert header.split()[-3:] == list(FOOTPRINT_COLUMNS)
    assert row.split("  ")[-1] == "300 B"
    assert "12.0 kB" in row
