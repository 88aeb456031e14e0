"""Runtimes behind one seam: compile, run and time an artifact; one timing protocol for all."""

from backends.base import Backend, Capabilities, Clock, CompiledModel, DeviceFingerprint
from backends.fake import DEFAULT_COSTS_MS, FakeBackend
from backends.fresh import time_in_fresh_process
from backends.ort.cpu import OrtCpuBackend
from backends.registry import backend_names, get_backend
from backends.timing import QUICK, THOROUGH, TimingSettings, time_paired

__all__ = [
    "DEFAULT_COSTS_MS",
    "QUICK",
    "THOROUGH",
    "Backend",
    "Capabilities",
    "Clock",
    "CompiledModel",
    "DeviceFingerprint",
    "FakeBackend",
    "OrtCpuBackend",
    "TimingSettings",
    "backend_names",
    "get_backend",
    "time_in_fresh_process",
    "time_paired",
]
