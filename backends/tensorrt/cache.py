"""The timing cache: how long each tactic took, on disk, shared by all builds for one GPU and TensorRT version.

Candidates of a search differ in a few layers, so nearly all tactics of a build have been timed by an earlier one.
Sharing also makes builds comparable: the same layer gets the same tactic in each (TensorRT documentation, "The Timing
Cache"). Processes may build at the same time: what one finds is merged with what stands on disk, under a lock. A cache
that is damaged, of another device or cannot be written is no error, only time lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bitfront.core import OutputError, write_bytes

if TYPE_CHECKING:
    import tensorrt as trt

CACHE_VARIABLE = "BITFRONT_CACHE"
_LOG = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Folder of this user's caches: ``$BITFRONT_CACHE``, else ``bitfront`` in the system's folder for caches."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bitfront"


def timing_cache_file(gpu: str, version: str) -> Path:
    """The file for a device and an exact TensorRT version; tactics of one mean nothing to another.

    Args:
        gpu: The device's name and architecture.
        version: TensorRT's version.
    """
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", f"{gpu} {version}").strip("-")
    return cache_folder() / "tensorrt" / f"{plain}.cache"


class TimingCache:
    """The timing cache of one file.

    Args:
        file: Where it lies; it need not exist.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def attach(self, config: trt.IBuilderConfig) -> bytes:
        """Give what stands on disk to a build; returns the bytes that were given, empty where none served."""
        stored = self._read()
        if stored and (cache := config.create_timing_cache(stored)) and config.set_timing_cache(cache, False):
            return stored
        if stored:
            _LOG.warning("timing cache '%s' is damaged or of another device; it is made anew", self.file)
        empty = config.create_timing_cache(b"")
        if empty is not None:
            config.set_timing_cache(empty, False)
        return b""

    def store(self, config: trt.IBuilderConfig, given: bytes) -> None:
        """Put what a build has found on disk, merged with what others put there meanwhile.

        Args:
            config: The configuration of a build that is done.
            given: What ``attach`` gave it.
        """
        cache = config.get_timing_cache()
        memory = cache.serialize() if cache is not None else None
        if cache is None or memory is None or (found := bytes(memory)) == given:
            return
        try:
            with _locked(self.file):
                stored = self._read()
                other = config.create_timing_cache(stored) if stored not in (b"", given) else None
                if other is not None and other.combine(cache, False) and (merged := other.serialize()) is not None:
                    found = bytes(merged)
                write_bytes(self.file, found)
        except (OSError, OutputError) as error:
            _LOG.warning("timing cache '%s' cannot be written, so later builds take longer: %s", self.file, error)

    def _read(self) -> bytes:
        try:
            return self.file.read_bytes()
        except OSError:
            return b""


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the file alone among processes; without a lock where the system has none of this kind."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
