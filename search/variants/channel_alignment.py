"""Channel alignment: the multiple that pruned channel counts are rounded to, by what a runtime's kernels take.

Pruning to 40 channels gains nothing where 40 take as long as 48.

A chain of 3×3 convolutions is timed at 32 channels and at 32 plus each candidate multiple (40 and 48), interleaved,
in each precision. With t(c) the time at c channels, the finest multiple m is taken whose channels pay:

    t(32 + m) ≤ 0.9 · t(32 + next multiple)

Multiply-adds grow with c², so where a runtime pads nothing t(40) / t(48) is near 0.7, with one side of each kernel
padded to 48 it is 0.83, with both 1. The times include the channel padding of the dialect itself. The last precision
that the runtime takes decides, for kernels differ: integer ones compute more channels at once than floating ones.

Not timed: depthwise convolutions and matrices. A device on which so small a network costs its launches alone gets the
coarsest multiple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.backends.base import Backend, CompiledModel
from bitfront.backends.timing import TimingSettings, time_paired
from bitfront.core import (
    Array,
    Artifact,
    BackendError,
    BackendUnavailableError,
    CalibrationSettings,
    ContentStore,
    LoweringError,
    Precision,
    digest,
)
from bitfront.core.document import JsonValue
from bitfront.lowering.dialect import Dialect
from bitfront.lowering.interpreter import Interpreter
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.reference import make_reference

Writer = Callable[[onnx.ModelProto, Precision], Artifact]
"""Writes a network with every layer in one precision, as the runtime wants it."""

_SCHEMA = 1
_KIND = "granularity"
_PAYING_RATIO = 0.9
_LAYERS, _SIDE, _IMAGE_CHANNELS = 4, 16, 16
_SAMPLES = 4  # for the ranges
_OPSET, _IR_VERSION = 21, 10
_SETTINGS = TimingSettings(
    slot_ms=2.0, max_runs=16, min_rounds=8, max_rounds=30, max_seconds_per_model=0.1, target=0.02
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelAlignment(JsonValue):
    """The multiple that channel counts should be rounded to, with the timings it follows from.

    Attributes:
        multiple: One of the candidates.
        ratios: Precision → channels → time relative to the widest chain's.
    """

    multiple: int
    ratios: Mapping[Precision, Mapping[int, float]]


def measure_channel_alignment(
    backend: Backend,
    write: Writer,
    *,
    threads: int,
    store: ContentStore,
    candidates: Sequence[int] = (8, 16),
    precisions: Sequence[Precision] = (Precision.INT8,),
    batch_size: int = 1,
) -> ChannelAlignment:
    """Time the chains on a backend, or read from ``store`` what they took on this device.

    Args:
        backend: The runtime whose kernels are timed.
        write: ``dialect_writer`` of the backend's dialect.
        threads: The backend's threads.
        store: Where the answer is kept.
        candidates: Multiples to choose from, the finest first.
        precisions: To time after FP32, the one that most layers will have last; those that are
            unprofitable on the backend, or that it refuses, are left out.
        batch_size: Samples a run.

    Raises:
        LoweringError: If the FP32 chain cannot be written.
        BackendError: If the backend refuses it.
    """
    assert len(candidates) > 1, candidates
    assert all(0 < fine < coarse for fine, coarse in pairwise(candidates)), candidates
    lower = [precision for precision in precisions if precision is not Precision.FP32]
    offered = [
        Precision.FP32,
        *(precision for precision in lower if precision not in backend.unprofitable_precisions()),
    ]
    key = digest(
        *("granularity", _SCHEMA, backend.name, backend.fingerprint().to_json(), threads, batch_size),
        *(tuple(candidates), tuple(precision.value for precision in offered)),
    )
    kept = store.get_json(_KIND, key)
    if kept is not None:
        return ChannelAlignment.from_json(kept)
    ratios: dict[Precision, Mapping[int, float]] = {}
    for precision in offered:
        try:
            ratios[precision] = _ratios(backend, write, precision, candidates, threads=threads, batch_size=batch_size)
        except BackendUnavailableError:
            raise  # a runtime that is gone is no property of the precision
        except (LoweringError, BackendError):
            if precision is Precision.FP32:
                raise
    found = ChannelAlignment(multiple=preferred_multiple(list(ratios.values())[-1], candidates), ratios=ratios)
    store.put_json(_KIND, key, found.to_json())
    return found


def preferred_multiple(ratios: Mapping[int, float], candidates: Sequence[int]) -> int:
    """The finest candidate multiple whose channels pay; the coarsest where none does.

    Args:
        ratios: Channels → time, in any unit, for the base and each candidate more.
        candidates: As for ``measure_channel_alignment``.
    """
    base = min(ratios)
    for fine, coarse in pairwise(candidates):
        if ratios[base + fine] <= _PAYING_RATIO * ratios[base + coarse]:
            return fine
    return candidates[-1]


def dialect_writer(dialect: Dialect, interpreter: Interpreter) -> Writer:
    """A writer of chains in a dialect, each layer in the first scheme of the precision that it offers.

    Args:
        dialect: How the runtime wants schemes written.
        interpreter: Calibrates the chains.
    """

    def write(proto: onnx.ModelProto, precision: Precision) -> Artifact:
        samples = CalibrationSettings(samples=_SAMPLES)
        reference = make_reference(proto, proto.graph.name, interpreter)
        lowerer = Lowerer(reference, dialect, {"x": _images(_SAMPLES)}, samples, ContentStore(None))
        schemes = {}
        for layer in lowerer.quantisable.layers:
            own = [scheme for scheme in layer.schemes if scheme.precision is precision and not scheme.is_weight_only]
            if not own:
                raise LoweringError(
                    f"layer '{layer.name}' has no scheme of precision {precision}",
                    "offer the precision in the dialect, or leave it out of the probe",
                )
            schemes[layer.name] = own[0]
        return lowerer.lower(schemes)

    return write


def chain(channels: int) -> onnx.ModelProto:
    """A chain of 3×3 convolutions with Relu: x (n, 16, 16, 16) → (n, channels, 16, 16), then ``channels`` all along."""
    rng = np.random.default_rng(0)
    nodes, constants, last, width = [], [], "x", _IMAGE_CHANNELS
    for index in range(_LAYERS + 1):
        # He's scale keeps the signal's power from layer to layer.
        weight = rng.normal(0, (2 / (9 * width)) ** 0.5, (channels, width, 3, 3)).astype(np.float32)
        constants += [
            numpy_helper.from_array(weight, f"conv{index}.weight"),
            numpy_helper.from_array(np.full(channels, 0.01, np.float32), f"conv{index}.bias"),
        ]
        nodes += [
            helper.make_node(
                "Conv",
                [last, f"conv{index}.weight", f"conv{index}.bias"],
                [f"c{index}"],
                name=f"conv{index}",
                kernel_shape=[3, 3],
                pads=[1, 1, 1, 1],
            ),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"),
        ]
        last, width = f"r{index}", channels
    graph = helper.make_graph(
        nodes,
        f"chain of {channels} channels",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", _IMAGE_CHANNELS, _SIDE, _SIDE))],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ("n", channels, _SIDE, _SIDE))],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def _ratios(
    backend: Backend,
    write: Writer,
    precision: Precision,
    candidates: Sequence[int],
    *,
    threads: int,
    batch_size: int,
) -> dict[int, float]:
    """Channels → time relative to the widest chain's."""
    base = 2 * candidates[-1]
    compiled: dict[str, CompiledModel] = {}
    for extra in (0, *candidates):
        artifact = write(chain(base + extra), precision)
        compiled[str(base + extra)] = backend.compile(artifact, threads=threads, batch_size=batch_size)
    stats = time_paired(
        compiled,
        str(base + candidates[-1]),
        {"x": _images(batch_size)},
        _SETTINGS,
        threads=threads,
        batch_size=batch_size,
        clock=backend.clock,
        processor_clock=backend.processor_clock,
    )
    return {int(channels): entry.ratio for channels, entry in stats.items()}


def _images(count: int) -> Array:
    images: NDArray[np.float32] = (
        np.random.default_rng(1).normal(size=(count, _IMAGE_CHANNELS, _SIDE, _SIDE)).astype(np.float32)
    )
    return images
