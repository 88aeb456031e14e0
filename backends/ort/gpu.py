"""The fingerprint of the GPU that ONNX Runtime uses: the device, its driver, and the libraries beside the runtime.

``nvidia-smi`` comes with the driver, so it is there wherever a GPU is; torch need not be. Asked for is device 0 as this
process sees it: the first of ``CUDA_VISIBLE_DEVICES`` where that is set.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bitfront.backends.affinity import available_cores
from bitfront.backends.base import DeviceFingerprint
from bitfront.core import BackendUnavailableError

_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaDevice:
    """Name, compute capability and driver of a GPU.

    Attributes:
        name: As its maker calls it.
        capability: Compute capability, ``9.0`` for example.
        driver: Version of the driver.
    """

    name: str
    capability: str
    driver: str


def parse_devices(text: str) -> tuple[NvidiaDevice, ...]:
    """Read what ``nvidia-smi`` answers: a line a device, name, compute capability and driver, split by commas.

    Raises:
        BackendUnavailableError: If a line is none such; quotes it.
    """
    devices = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        fields = [field.strip() for field in line.rsplit(",", 2)]
        if len(fields) != 3 or not all(fields) or not fields[1].replace(".", "").isdigit():
            raise BackendUnavailableError(
                f"nvidia-smi: expected a name, a compute capability and a driver version, got '{line}'",
                "run nvidia-smi by hand and mend what it complains about",
            )
        devices.append(NvidiaDevice(name=fields[0], capability=fields[1], driver=fields[2]))
    return tuple(devices)


def _ask(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendUnavailableError(
            f"nvidia-smi cannot be asked for the GPU: {error}", "install the driver of the NVIDIA GPU"
        ) from error
    if done.returncode:
        said = (done.stdout.strip() or done.stderr.strip() or "it said nothing").splitlines()[0]
        raise BackendUnavailableError(
            f"nvidia-smi failed with status {done.returncode}: {said}", "mend the driver of the NVIDIA GPU"
        )
    return done.stdout


def first_device(ask: Callable[[tuple[str, ...]], str] | None = None) -> NvidiaDevice:
    """The device that CUDA calls 0 in this process.

    Args:
        ask: Runs a command and gives what it printed; None runs it.

    Raises:
        BackendUnavailableError: If there is none, or nvidia-smi cannot tell.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = visible.split(",")[0].strip() if visible is not None else "0"
    if chosen in ("", "-1"):
        raise BackendUnavailableError(
            "CUDA_VISIBLE_DEVICES hides every GPU from this process", "unset it, or name the GPU to use"
        )
    devices = parse_devices((ask or _ask)((*_QUERY, f"--id={chosen}")))
    if not devices:
        raise BackendUnavailableError("nvidia-smi lists no GPU", "check that the machine has an NVIDIA GPU")
    return devices[0]


def gpu_fingerprint(onnxruntime: Any, *others: str) -> DeviceFingerprint:
    """The GPU as the device, with the runtime and what it was built for.

    Args:
        onnxruntime: The module.
        *others: Further names and versions that results depend on.

    Raises:
        BackendUnavailableError: If there is no GPU.
    """
    gpu = first_device()
    cuda = str(getattr(onnxruntime, "cuda_version", "") or "unknown")
    parts = [f"onnxruntime {onnxruntime.__version__}", f"CUDA {cuda}", f"cuDNN {_cudnn(cuda)}", *others]
    return DeviceFingerprint(
        device=f"{gpu.name}, driver {gpu.driver}",
        cores=available_cores(),
        instructions=(f"sm_{gpu.capability.replace('.', '')}",),
        system=f"{platform.system()} {platform.machine()}",
        runtime=", ".join(parts),
        python=platform.python_version(),
    )


def installed(*names: str) -> str:
    """Version of the first of these distributions that is installed; ``of the system`` where none is."""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of the system"


def _cudnn(cuda: str) -> str:
    return installed(f"nvidia-cudnn-cu{cuda.partition('.')[0]}", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
