"""Artifacts: what tells them apart, and how they lie on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitfront.core import Artifact, ConfigError, digest
from bitfront.core.artifact import description_file, load_artifact, save_artifact

PLAIN = Artifact.onnx(b"network")
SET = Artifact.onnx(b"network", {"session.key": "1"})
SEVERAL = Artifact(files={"net.tflite": b"network", "net-1.data": b"weights"}, main="net.tflite", format="litert")


def test_a_plain_artifact_is_its_bytes() -> None:
    """A single ONNX file without settings has the digest of its bytes, which caches are kept by."""
    assert (PLAIN.digest, PLAIN.content, PLAIN.size_bytes) == (digest(b"network"), b"network", 7)


def test_everything_tells_artifacts_apart() -> None:
    """Settings, their values, the format and every file are part of the digest."""
    others = (
        Artifact.onnx(b"network", {"session.key": "2"}),
        Artifact(files={"a": b"network"}, main="a", format="litert"),
        Artifact(files={"a": b"network", "b": b"weights"}, main="a"),
        Artifact(files={"a": b"network", "b": b"others"}, main="a"),
    )
    assert len({artifact.digest for artifact in (PLAIN, SET, SEVERAL, *others)}) == 7


def test_the_size_is_of_all_files() -> None:
    """What is deployed is every file."""
    assert SEVERAL.size_bytes == len(b"network") + len(b"weights")
    assert SEVERAL.data == b"network"


@pytest.mark.parametrize("artifact", [PLAIN, SET, SEVERAL], ids=["plain", "settings", "files"])
def test_saved_artifacts_are_loaded_alike(tmp_path: Path, artifact: Artifact) -> None:
    """Files, format and settings come back; a plain artifact is its file alone."""
    path = tmp_path / artifact.main
    save_artifact(artifact, path)
    found = load_artifact(path)
    assert (found.digest, found.format, dict(found.settings)) == (
        artifact.digest,
        artifact.format,
        dict(artifact.settings),
    )
    assert len(list(tmp_path.iterdir())) == (1 if artifact.is_plain else len(artifact.files) + 1)


def test_the_name_of_the_main_file_does_not_matter(tmp_path: Path) -> None:
    """A model is copied under any name with the description beside it."""
    save_artifact(SET, tmp_path / "other.onnx")
    assert load_artifact(tmp_path / "other.onnx").digest == SET.digest


def test_an_overwritten_model_loses_its_description(tmp_path: Path) -> None:
    """What was said of an earlier file of that name is not taken for the new one."""
    save_artifact(SET, tmp_path / "net.onnx")
    save_artifact(PLAIN, tmp_path / "net.onnx")
    assert load_artifact(tmp_path / "net.onnx").is_plain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"key": 1}}, "settings.key: expected a valid string, got 1"),
        ({"files": ["../weights"]}, "expected a relative path"),
        ({"files": ["net.onnx"]}, "file 'net.onnx' is the model itself"),
        ({"schema_version": 2}, "expected schema version 1, got 2"),
        ({"more": 1}, "more: unknown field"),
    ],
    ids=["value", "outside", "itself", "version", "unknown"],
)
def test_a_damaged_description_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    """With the file's name and what is wrong with it."""
    path = tmp_path / "net.onnx"
    save_artifact(SET, path)
    beside = description_file(path)
    beside.write_text(json.dumps({**json.loads(beside.read_text()), **changes}))
    with pytest.raises(ConfigError, match=message) as caught:
        load_artifact(path)
    assert str(beside) in caught.value.message
