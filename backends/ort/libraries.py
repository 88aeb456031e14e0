"""Whether ONNX Runtime's GPU providers can start here, and if not, which library is missing and what brings it.

The runtime itself leaves out a provider that cannot be loaded and says why on stderr alone. So what it would load is
loaded here first, and the dynamic linker asked what is missing. Libraries from NVIDIA's wheels are made known to the
process before (``onnxruntime.preload_dlls``; TensorRT's wheels are not among what that loads).

Not handled: Windows, where the dynamic linker does not name the missing library.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bitfront.backends.ort.package import load_onnxruntime
from bitfront.core import BackendUnavailableError

CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
_PLUGINS: Mapping[str, str] = MappingProxyType(
    {
        CUDA_PROVIDER: "libonnxruntime_providers_cuda.so",
        TENSORRT_PROVIDER: "libonnxruntime_providers_tensorrt.so",
    }
)
_SHARED = "libonnxruntime_providers_shared.so"
_TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
_MISSING = re.compile(r"(lib[\w+-]+\.so[.\d]*): cannot open shared object file")
# Library → stem of the wheel that holds it (NVIDIA's package index pages). Wheels for CUDA 12 end in -cu12; those for
# CUDA 13 bear no suffix, but cuDNN's and TensorRT's end in -cu13.
_WHEELS: Mapping[str, str] = MappingProxyType(
    {
        "libcublas": "nvidia-cublas",
        "libcublasLt": "nvidia-cublas",
        "libcudart": "nvidia-cuda-runtime",
        "libcufft": "nvidia-cufft",
        "libcurand": "nvidia-curand",
        "libnvrtc": "nvidia-cuda-nvrtc",
        "libnvJitLink": "nvidia-nvjitlink",
        "libcudnn": "nvidia-cudnn",
        "libnvinfer": "tensorrt",
        "libnvinfer_plugin": "tensorrt",
        "libnvonnxparser": "tensorrt",
    }
)
_ALWAYS_SUFFIXED = ("nvidia-cudnn", "tensorrt")
_DRIVER = "libcuda"
_OLDEST_SUPPORTED = "12"


def load_provider(provider: str, load: Callable[[str], object] = ctypes.CDLL) -> Any:
    """The ``onnxruntime`` module, in which ``provider`` can start as far as its libraries go.

    Args:
        provider: ``CUDA_PROVIDER`` or ``TENSORRT_PROVIDER``.
        load: Loads a library by path, ``OSError`` where it cannot.

    Raises:
        BackendUnavailableError: If ONNX Runtime, the provider or a library of its is missing.
    """
    onnxruntime = load_onnxruntime("gpu")
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise BackendUnavailableError(
            f"the installed ONNX Runtime {onnxruntime.__version__} has no {provider}, only {', '.join(available)}: it "
            "is the wheel without GPU support",
            "pip uninstall onnxruntime, then pip install 'bitfront[gpu]'",
        )
    preload(onnxruntime, provider, load)
    folder = Path(onnxruntime.__file__).parent / "capi"
    cuda = str(getattr(onnxruntime, "cuda_version", "") or _OLDEST_SUPPORTED)
    with contextlib.suppress(OSError):
        load(str(folder / _SHARED))
    try:
        load(str(folder / _PLUGINS[provider]))
    except OSError as error:
        reason, hint = explain(str(error), cuda)
        raise BackendUnavailableError(f"{provider} cannot be loaded: {reason}", hint) from error
    return onnxruntime


def preload(onnxruntime: Any, provider: str, load: Callable[[str], object] = ctypes.CDLL) -> None:
    """Load CUDA, cuDNN and TensorRT from NVIDIA's wheels where they are installed; the system's are found anyway."""
    if hasattr(onnxruntime, "preload_dlls"):
        # It prints what it does not find; whether that matters is found out afterwards.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(OSError, RuntimeError):
            onnxruntime.preload_dlls()
    wheel = importlib.util.find_spec("tensorrt_libs") if provider == TENSORRT_PROVIDER else None
    for folder in (wheel.submodule_search_locations or ()) if wheel is not None else ():
        for name in _TENSORRT_LIBRARIES:
            with contextlib.suppress(OSError):
                load(str(Path(folder) / name))


def explain(text: str, cuda: str) -> tuple[str, str]:
    """Reason and hint for what the dynamic linker or ONNX Runtime said of a library.

    Args:
        text: The message.
        cuda: CUDA version that the installed ONNX Runtime was built for, ``13.0`` for example.
    """
    found = _MISSING.search(text)
    if found is None:
        return (
            (text.strip().splitlines() or ["no reason was given"])[0],
            "check with nvidia-smi that there is an NVIDIA GPU and that its driver is new enough for CUDA "
            f"{cuda.partition('.')[0]}",
        )
    library = found[1]
    stem, _, version = library.partition(".so")
    if stem == _DRIVER:
        return f"{library}, which belongs to the NVIDIA driver, was not found", "install the driver of the GPU"
    wheel = wheel_of(stem, version.lstrip("."), cuda)
    if wheel is None:
        return f"{library} was not found", f"install it, or CUDA {cuda} as a whole"
    return f"{library} was not found", f"pip install {wheel}, or put {library} on LD_LIBRARY_PATH"


def wheel_of(stem: str, version: str, cuda: str) -> str | None:
    """The requirement that brings a library; None for one that is not known.

    Args:
        stem: Name up to ``.so``.
        version: What stands behind ``.so.``; may be empty.
        cuda: CUDA version that the installed ONNX Runtime was built for.
    """
    name = _WHEELS.get(stem)
    if name is None:
        return None
    major = cuda.partition(".")[0]
    suffix = f"-cu{major}" if major == _OLDEST_SUPPORTED or name in _ALWAYS_SUFFIXED else ""
    # The library's own major version is the wheel's for these two; CUDA's parts are numbered differently.
    pin = f"=={version.partition('.')[0]}.*" if name in _ALWAYS_SUFFIXED and version else ""
    return f"'{name}{suffix}{pin}'" if pin else f"{name}{suffix}"
