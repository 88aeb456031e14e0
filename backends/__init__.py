"""Runtimes behind one seam: compile, run and time an artifact; one timing protocol for all."""

from bitfront.backends.base import Backend, Capabilities, Clock, CompiledModel, DeviceFingerprint
from bitfront.backends.fake import DEFAULT_COSTS_MS, FakeBackend
from bitfront.backends.ort.cpu import OrtCpuBackend
from bitfront.backends.registry import backend_names, get_backend
from bitfront.backends.subprocess_timing import time_in_subprocess
from bitfront.backends.timing import QUICK, THOROUGH, TimingSettings, time_paired

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
    "time_in_subprocess",
    "time_paired",
]
