"""What each precision gives on OpenVINO when every layer has it, beside NNCF's own quantisation of the same network.

    python -m experiments.openvino_study --workload experiments.workloads:resnet20 --data ../shared/data

One process, one run: all artifacts are timed interleaved with FP32 (one thread, batch 1 unless told otherwise) and each
is scored through OpenVINO on all evaluation data. ``nncf.quantize`` gets the same FP32 network and the same calibration
inputs, with its default preset and its fast bias correction; its result is timed with the backend's own options, in
FP32 where it is floating. On a thousand images a point of accuracy is ten of them: beside it stand how many answers
are won from FP32 and lost to it, and the mean divergence of the outputs from FP32's (KL for classifiers).

NNCF keeps what it collects in memory: give large networks fewer ``--peer-samples`` (SqueezeNet at 224² takes 3 GB for
16).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends import THOROUGH, CompiledModel, time_paired
from backends.batches import run_batches
from backends.openvino import OpenVinoBackend
from backends.openvino_package import load_openvino
from lowering.dialects.registry import get_dialect
from lowering.export import export_reference
from lowering.load import load_reference
from lowering.lowerer import Lowerer
from precision import FP32, BackendUnavailableError, CalibrationSettings, ContentStore, EngineError, Inputs, LayerChoice
from search.tables import plain_table
from search.workloads import load_workload
from sensitivity.divergence import choose_measure, divergence

OURS = ("fp32", "fp16", "int8:nearest", "int8:mse", "int4:mse", "int4:gptq", "int4:gptq:weight-only")
PEER = "nncf"


def quantise_with_nncf(model: bytes, inputs: Inputs) -> Any:
    """NNCF's quantised version of an FP32 network, an ``openvino.Model``.

    Args:
        model: ONNX bytes.
        inputs: Calibration inputs, (n, …) each; they are given one sample at a time.

    Raises:
        BackendUnavailableError: If NNCF or OpenVINO is missing.
    """
    # NNCF reports its use, unless it takes this for an automated run of its developers'.
    os.environ.setdefault("NNCF_CI", "1")
    openvino = load_openvino()
    try:
        import nncf
    except ImportError as error:
        raise BackendUnavailableError(
            f"NNCF cannot be imported: {error}", "install it with: pip install 'bitfront[peers]'"
        ) from error
    count = len(next(iter(inputs.values())))
    samples = [{name: array[index : index + 1] for name, array in inputs.items()} for index in range(count)]
    network = openvino.Core().read_model(model)
    return nncf.quantize(network, nncf.Dataset(samples), fast_bias_correction=True, subset_size=count)


def saved_bytes(network: Any) -> int:
    """Bytes of a network in OpenVINO's own files."""
    with tempfile.TemporaryDirectory() as folder:
        load_openvino().save_model(network, Path(folder) / "network.xml")
        return sum(path.stat().st_size for path in Path(folder).iterdir())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workload", default="experiments.workloads:resnet20", help="module:attribute")
    parser.add_argument("--data", type=Path, help="folder of the published weights and images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--samples", type=int, default=512, help="calibration samples")
    parser.add_argument("--peer-samples", type=int, help="calibration samples for NNCF (default: as --samples)")
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
    backend = OpenVinoBackend()
    reference = (
        load_reference(workload.model)
        if isinstance(workload.model, Path)
        else export_reference(workload.model, workload.calibration, name=workload.name)
    )
    settings = CalibrationSettings(samples=options.samples)
    lowerer = Lowerer(
        reference, get_dialect(backend.dialect), workload.calibration, settings, ContentStore(options.cache)
    )
    setup = {"threads": options.threads, "batch_size": options.batch_size}
    compiled: dict[str, CompiledModel] = {}
    sizes: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for text in OURS:
        start = time.perf_counter()
        choice = LayerChoice.parse(text)
        model = lowerer.lower(
            {layer.name: choice if choice in layer.choices else FP32 for layer in lowerer.inventory.layers}
        )
        seconds[text], sizes[text] = time.perf_counter() - start, len(model)
        compiled[text] = backend.compile(model, **setup)
    start = time.perf_counter()
    count = options.peer_samples or options.samples
    calibration = {name: array[:count] for name, array in workload.calibration.items()}
    everything = {layer.name: FP32 for layer in lowerer.inventory.layers}
    network = quantise_with_nncf(lowerer.lower(everything), calibration)
    seconds[PEER], sizes[PEER] = time.perf_counter() - start, saved_bytes(network)
    compiled[PEER] = backend.compile_network(network, **setup)

    batch = {name: array[: options.batch_size] for name, array in workload.calibration.items()}
    stats = time_paired(compiled, "fp32", batch, THOROUGH, clock=backend.clock, **setup)
    evaluation = workload.evaluation
    outputs = {name: run_batches(made, evaluation.inputs) for name, made in compiled.items()}
    scores = {
        name: np.asarray(workload.metric(found, evaluation.labels), dtype=float) for name, found in outputs.items()
    }
    measure = choose_measure(outputs["fp32"])
    rows = []
    for name, found in outputs.items():
        latency, change = stats[name], scores[name] - scores["fp32"]
        rows.append(
            (
                name,
                f"{latency.median_ms:.3f}",
                f"{latency.p90_ms:.3f}",
                f"{latency.ratio:.3f} [{latency.ratio_low:.3f}, {latency.ratio_high:.3f}]",
                f"{latency.ratio / stats[PEER].ratio:.3f}",
                f"{sizes[name]:,}",
                f"{sizes[name] / sizes['fp32']:.3f}",
                f"{float(scores[name].mean()):.4f}",
                f"+{int((change > 0).sum())} -{int((change < 0).sum())}",
                f"{float(divergence(measure, outputs['fp32'], found).mean()):.5f}",
                f"{seconds[name]:.1f}",
            )
        )
    device = backend.fingerprint()
    sys.stdout.write(
        f"{workload.name} on {device.device} ({', '.join(device.instructions)}), {device.runtime}\n"
        f"{options.threads} thread(s), batch {options.batch_size}, {options.samples} calibration samples "
        f"({count} for NNCF), {len(evaluation):,} evaluation samples\n"
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
        "won, lost",
        measure,
        "made in s",
    )
    sys.stdout.write(plain_table(header, rows) + "\n")


if __name__ == "__main__":
    sys.exit(main())
