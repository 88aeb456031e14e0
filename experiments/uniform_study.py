"""Study of uniform precisions, beside the runtime's own quantiser on the same network.

    python -m bitfront.experiments.uniform_study --data ../shared/data
    python -m bitfront.experiments.uniform_study --backend openvino --data ../shared/data

The tool is ONNX Runtime's ``quantize_static`` for ``ort-cpu``, NNCF's ``quantize`` for ``openvino``; it gets the same
FP32 network and the same calibration inputs. One process, one run: all artifacts are timed interleaved with FP32 (one
thread, batch 1 unless told otherwise), and each is scored through the runtime on all evaluation data. On a thousand
images a point of accuracy is ten of them: beside it stand how many answers are won from FP32 and lost to it, and the
mean divergence of the outputs from FP32's (KL for classifiers).

NNCF keeps what it collects in memory: give it fewer ``--peer-samples`` of large images (3 GB for 16 in SqueezeNet).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bitfront.backends import THOROUGH, CompiledModel, get_backend, time_paired
from bitfront.backends.batches import run_batches
from bitfront.backends.registry import default_interpreter
from bitfront.core import CalibrationSettings, ContentStore, EngineError, as_metric
from bitfront.experiments.peers import quantised_by_peer
from bitfront.experiments.rows import LATENCY, latency_cells, uniform
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.export import export_reference
from bitfront.lowering.load import load_reference
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.console.tables import plain_table
from bitfront.search.inputs.workloads import load_workload
from bitfront.sensitivity.divergence import divergence
from bitfront.sensitivity.divergence_metric import OutputForm, choose_divergence_metric, output_readings

INTEGER = ("int8:nearest", "int8:mse", "int4:mse", "int4:gptq")
OURS = ("fp32", "fp16", *INTEGER, "int8:mse:weight-only", "int4:gptq:weight-only")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workload", default="bitfront.experiments.workloads:resnet20", help="module:attribute")
    parser.add_argument("--data", type=Path, help="folder of the published weights and images")
    parser.add_argument("--backend", default="ort-cpu", help="ort-cpu or openvino")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--samples", type=int, default=512, help="calibration samples")
    parser.add_argument("--peer-samples", type=int, help="calibration samples for the tool (default: as --samples)")
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
    backend = get_backend(options.backend)
    reference = (
        load_reference(workload.model, default_interpreter())
        if isinstance(workload.model, Path)
        else export_reference(workload.model, workload.calibration, default_interpreter(), name=workload.name)
    )
    settings = CalibrationSettings(samples=options.samples)
    store = ContentStore(options.cache)
    lowerer = Lowerer(reference, get_dialect(backend.dialect), workload.calibration, settings, store)
    setup = {"threads": options.threads, "batch_size": options.batch_size}
    compiled: dict[str, CompiledModel] = {}
    sizes: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for text in OURS:
        start = time.perf_counter()
        model = lowerer.lower(uniform(lowerer, text))
        seconds[text], sizes[text] = time.perf_counter() - start, model.size_bytes
        compiled[text] = backend.compile(model, **setup)
    start = time.perf_counter()
    count = options.peer_samples or options.samples
    calibration = {name: array[:count] for name, array in workload.calibration.items()}
    peer = quantised_by_peer(backend, lowerer.lower(uniform(lowerer, "fp32")).data, calibration, **setup)
    seconds[peer.name], sizes[peer.name] = time.perf_counter() - start, peer.size_bytes
    compiled[peer.name] = peer.compiled

    batch = {name: array[: options.batch_size] for name, array in workload.calibration.items()}
    stats = time_paired(
        compiled, "fp32", batch, THOROUGH, clock=backend.clock, processor_clock=backend.processor_clock, **setup
    )
    evaluation = workload.evaluation
    outputs = {name: run_batches(made, evaluation.inputs) for name, made in compiled.items()}
    scores = {
        name: np.asarray(workload.metric(found, evaluation.labels), dtype=float) for name, found in outputs.items()
    }
    read = output_readings(reference.proto, as_metric(workload.metric).outputs_are)
    measure = choose_divergence_metric(read, [OutputForm.of(output) for output in outputs["fp32"]], len(evaluation))
    rows = []
    for name, found in outputs.items():
        latency, change = stats[name], scores[name] - scores["fp32"]
        rows.append(
            (
                name,
                *latency_cells(latency),
                f"{latency.ratio / stats[peer.name].ratio:.3f}",
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
        f"({count} for {peer.name}), {len(evaluation):,} evaluation samples\n"
    )
    header = ("every layer", *LATENCY, f"× {peer.name}", "bytes", "× FP32", "metric", "won, lost", measure, "made in s")
    sys.stdout.write(plain_table(header, rows) + "\n")


if __name__ == "__main__":
    sys.exit(main())
