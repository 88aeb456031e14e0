"""What each precision gives when every layer has it, beside ONNX Runtime's own static quantisation.

    python -m experiments.uniform_study --workload experiments.workloads:resnet20 --data ../shared/data

One process, one run: all artifacts are timed interleaved with FP32 (one thread, batch 1 unless told otherwise), and
each is scored through ONNX Runtime on all evaluation data. ``quantize_static`` gets the same FP32 network and the same
calibration inputs: U8 activations, S8 weights per channel, Q/DQ, min-max.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from backends import THOROUGH, get_backend, time_paired
from backends.batches import run_batches
from lowering.dialects.registry import get_dialect
from lowering.export import export_reference
from lowering.load import load_reference
from lowering.lowerer import Lowerer
from precision import FP32, CalibrationSettings, ContentStore, EngineError, Inputs, LayerChoice
from search.tables import plain_table
from search.workloads import load_workload

OURS = ("fp32", "fp16", "int8:nearest", "int8:mse", "int4:mse", "int4:gptq", "int8:mse:weight-only")
OURS_FOUR_BIT = "int4:gptq:weight-only"
PEER = "quantize_static"


class _Feed:
    """Calibration inputs as ``quantize_static`` reads them, one sample at a time."""

    def __init__(self, inputs: Inputs) -> None:
        self._samples = iter(
            [
                {name: array[i : i + 1] for name, array in inputs.items()}
                for i in range(len(next(iter(inputs.values()))))
            ]
        )

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """The next sample; None at the end."""
        return next(self._samples, None)


def quantize_static(model: bytes, inputs: Inputs) -> bytes:
    """ONNX Runtime's own quantised version of an FP32 network."""
    from onnxruntime import quantization

    class Reader(_Feed, quantization.CalibrationDataReader):  # type: ignore[misc] # ships no types
        pass

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "quantised.onnx"
        quantization.quantize_static(
            onnx.load_from_string(model),
            str(result),
            Reader(inputs),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return result.read_bytes()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workload", default="experiments.workloads:resnet20", help="module:attribute")
    parser.add_argument("--data", type=Path, help="folder of the published weights and images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--samples", type=int, default=512, help="calibration samples")
    parser.add_argument("--cache", type=Path, help="folder for ranges and rounded weights (default: none)")
    options = parser.parse_args(argv)
    try:
        _study(options)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _study(options: argparse.Namespace) -> None:
    workload = load_workload(options.workload, options.data)
    backend = get_backend("ort-cpu")
    reference = (
        load_reference(workload.model)
        if isinstance(workload.model, Path)
        else export_reference(workload.model, workload.calibration, name=workload.name)
    )
    settings = CalibrationSettings(samples=options.samples)
    store = ContentStore(options.cache)
    lowerer = Lowerer(reference, get_dialect(backend.dialect), workload.calibration, settings, store)
    artifacts: dict[str, bytes] = {}
    seconds: dict[str, float] = {}
    for text in (*OURS, OURS_FOUR_BIT):
        start = time.perf_counter()
        choice = LayerChoice.parse(text)
        artifacts[text] = lowerer.lower(
            {layer.name: choice if choice in layer.choices else FP32 for layer in lowerer.inventory.layers}
        )
        seconds[text] = time.perf_counter() - start
    start = time.perf_counter()
    calibration = {name: array[: options.samples] for name, array in workload.calibration.items()}
    artifacts[PEER] = quantize_static(artifacts["fp32"], calibration)
    seconds[PEER] = time.perf_counter() - start

    compiled = {name: backend.compile(model, threads=options.threads) for name, model in artifacts.items()}
    batch = {name: array[: options.batch_size] for name, array in workload.calibration.items()}
    stats = time_paired(compiled, "fp32", batch, THOROUGH, threads=options.threads, batch_size=options.batch_size)
    evaluation = workload.evaluation
    rows = []
    for name, model in compiled.items():
        scores = np.asarray(workload.metric(run_batches(model, evaluation.inputs), evaluation.labels))
        latency, size = stats[name], len(artifacts[name])
        rows.append(
            (
                name,
                f"{latency.median_ms:.3f}",
                f"{latency.p90_ms:.3f}",
                f"{latency.ratio:.3f} [{latency.ratio_low:.3f}, {latency.ratio_high:.3f}]",
                f"{latency.ratio / stats[PEER].ratio:.3f}",
                f"{size:,}",
                f"{size / len(artifacts['fp32']):.3f}",
                f"{float(scores.mean()):.4f}",
                f"{seconds[name]:.1f}",
            )
        )
    device = backend.fingerprint()
    sys.stdout.write(
        f"{workload.name} on {device.device} ({', '.join(device.instructions)}), {device.runtime}\n"
        f"{options.threads} thread(s), batch {options.batch_size}, {options.samples} calibration samples, "
        f"{len(evaluation):,} evaluation samples\n"
    )
    header = (
        "every layer",
        "median ms",
        "p90 ms",
        "× FP32 [95 %]",
        f"× {PEER}",
        "bytes",
        "× FP32",
        "metric",
        "made in s",
    )
    sys.stdout.write(plain_table(header, rows) + "\n")


if __name__ == "__main__":
    sys.exit(main())
