"""The timing cache on disk: shared, merged, never in the way."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from bitfront.backends.tensorrt.cache import TimingCache, cache_folder, timing_cache_file
from tests.backends.substitute_tensorrt import FakeConfig


def _build(file: Path, found: str, meanwhile: bytes | None = None) -> bytes:
    """One build that finds timings; returns what it was given."""
    config: Any = FakeConfig()
    timings = TimingCache(file)
    given = timings.attach(config)
    config.tune(found)
    if meanwhile is not None:
        file.write_bytes(meanwhile)
    timings.store(config, given)
    return given


def test_builds_share_what_they_find(tmp_path: Path) -> None:
    """The second build starts from what the first one found; the file holds both."""
    file = tmp_path / "deep" / "gpu.cache"
    assert _build(file, "ab") == b""
    assert _build(file, "c") == b"ab"
    assert file.read_bytes() == b"abc"


def test_another_process_loses_nothing(tmp_path: Path) -> None:
    """What was written during a build is merged, not overwritten."""
    file = tmp_path / "gpu.cache"
    _build(file, "ab", meanwhile=b"xy")
    assert file.read_bytes() == b"abxy"


def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    """A build that finds nothing leaves the file as it is, even if it has been removed since."""
    file = tmp_path / "gpu.cache"
    file.write_bytes(b"ab")
    config: Any = FakeConfig()
    timings = TimingCache(file)
    given = timings.attach(config)
    file.unlink()
    timings.store(config, given)
    assert not file.exists()


@pytest.mark.parametrize("damaged", [b"\xff\x00", b"!other"], ids=["damaged", "another device's"])
def test_a_useless_cache_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes) -> None:
    """A damaged cache, or one of another device, is told of and replaced."""
    file = tmp_path / "gpu.cache"
    file.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        assert _build(file, "ab") == b""
    assert "is made anew" in caplog.text
    assert file.read_bytes() == b"ab"


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The build is kept; the log says what is lost."""
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        _build(tmp_path / "file" / "gpu.cache", "ab")
    assert "cannot be written, so later builds take longer" in caplog.text


def test_the_file_is_of_one_device_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another device or another exact version has another file, in the folder that the environment names."""
    monkeypatch.setenv("BITFRONT_CACHE", str(tmp_path))
    file = timing_cache_file("NVIDIA H100 80GB/HBM3 sm_90", "10.16.1.11")
    assert file == tmp_path / "tensorrt" / "NVIDIA-H100-80GB-HBM3-sm-90-10.16.1.11.cache"
    others = {timing_cache_file("NVIDIA L4 sm_89", "10.16.1.11"), timing_cache_file("NVIDIA L4 sm_89", "11.4.0.106")}
    assert len(others | {file}) == 3


def test_caches_lie_where_the_system_puts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder of the user's own it is the system's."""
    monkeypatch.delenv("BITFRONT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "bitfront"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "bitfront"
