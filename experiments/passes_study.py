"""Study of the passes on CIFAR-10 ResNet-20: half of its multiply-adds removed, recovered without labels, quantised.

    python -m bitfront.experiments.passes_study --data ../shared/data

Structured pruning takes half of the channels of every group that can be pruned (Taylor importance); distillation from
the unpruned network uses the 10,000 training images without their labels. Every state is lowered for ONNX Runtime's
processor provider in FP32 and quantised, scored through it on all test images, and timed interleaved with the original
in FP32. With ``--bits 4 3`` the original network is also trained with all its weights at so few bits (three are stored
as four) and 8-bit activations.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from bitfront.backends import THOROUGH, CompiledModel, OrtCpuBackend, time_paired
from bitfront.backends.affinity import available_cores
from bitfront.backends.batches import run_batches
from bitfront.backends.registry import default_interpreter
from bitfront.core import Artifact, CalibrationSettings, ContentStore, EngineError, Inputs, Labelled
from bitfront.experiments.data import IMAGENET_STATISTICS, data_file, data_folder, load_cifar
from bitfront.experiments.rows import LATENCY, latency_cells, uniform
from bitfront.experiments.workloads import resnet20
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.export import export_reference
from bitfront.lowering.lowerer import Lowerer
from bitfront.passes.data import Augmentation, TrainingData
from bitfront.passes.distill import default_distillation_config
from bitfront.passes.prune import StructuredPrune
from bitfront.passes.prune_counts import count_macs, count_parameters
from bitfront.passes.prune_groups import Status, find_prune_groups
from bitfront.passes.qat import TRAINING, Qat
from bitfront.search.console.tables import plain_table

SPARSITY = 0.5
AUGMENT = Augmentation(mirror=0.5, shift=4)
QUANTISED = ("int8:mse", "int4:gptq")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A network at one stage of the study.

    Attributes:
        name: What was done to it.
        model: Artifact.
        macs: Multiply-adds of one image; of a trained artifact those of its network.
        parameters: Of the network.
        seconds: What making it from the one above took.
    """

    name: str
    model: Artifact
    macs: int
    parameters: int
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of the published weights and images")
    parser.add_argument("--steps", type=int, default=1500, help="distillation steps of 128 images")
    parser.add_argument(
        "--bits", type=int, nargs="*", default=[], choices=(3, 4), help="also train the given network at so many bits"
    )
    parser.add_argument("--bit-steps", type=int, default=TRAINING.steps, help="steps of that training")
    options = parser.parse_args(argv)
    try:
        _study(options)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _study(options: argparse.Namespace) -> None:
    workload = resnet20(options.data)
    assert isinstance(workload.model, nn.Module)
    images = load_cifar(
        data_file(data_folder(options.data), "cifar10/cifar10_train_10k.npz"), IMAGENET_STATISTICS
    ).inputs
    data = TrainingData(inputs=images)
    states = _pruned(workload.model, workload.calibration, data, options)
    for bits in options.bits:
        states.append(_trained(workload.model, workload.calibration, data, bits, options.bit_steps))
    _report(states, workload.calibration, workload.evaluation)


def _pruned(module: nn.Module, calibration: Inputs, data: TrainingData, options: argparse.Namespace) -> list[State]:
    groups = find_prune_groups(module, data.inputs)
    sparsity = {group.name: SPARSITY for group in groups if group.status is Status.PRUNABLE and not group.branch}
    prune = StructuredPrune(sparsity=sparsity)
    states = _written("as given", module, calibration, 0.0, QUANTISED)
    start = time.perf_counter()
    smaller = prune.apply(module, data, groups=groups)
    states += _written("pruned in one shot", smaller, calibration, time.perf_counter() - start, ())
    start = time.perf_counter()
    smaller = replace(prune, batch_norm_samples=1024).apply(module, data, groups=groups)
    states += _written("… batch norm measured", smaller, calibration, time.perf_counter() - start, ())
    for name, match_features in (("… distilled on answers alone", False), ("… distilled", True)):
        distillation = default_distillation_config(
            module, options.steps, augment=AUGMENT, samples=len(data), match_features=match_features
        )
        start = time.perf_counter()
        recovered = distillation.apply(smaller, data, teacher=module)
        seconds = time.perf_counter() - start
        states += _written(name, recovered, calibration, seconds, QUANTISED if match_features else ())
    return states


def _written(
    name: str, module: nn.Module, calibration: Inputs, seconds: float, quantised: Sequence[str]
) -> list[State]:
    lowerer = _lowerer(module, calibration)
    macs, parameters = count_macs(module, calibration), count_parameters(module)
    return [
        State(
            name=f"{name}, {text}",
            model=lowerer.lower(uniform(lowerer, text)),
            macs=macs,
            parameters=parameters,
            seconds=seconds,
        )
        for text in ("fp32", *quantised)
    ]


def _trained(module: nn.Module, calibration: Inputs, data: TrainingData, bits: int, steps: int) -> State:
    lowerer = _lowerer(module, calibration)
    schemes = uniform(lowerer, "int4:gptq")
    start = time.perf_counter()
    result = Qat(training=replace(TRAINING, steps=steps, augment=AUGMENT), int4_bits=bits).apply(lowerer, schemes, data)
    seconds = time.perf_counter() - start
    trained = result.lowerer(lowerer.dialect, lowerer.settings, ContentStore(None), lowerer.calibration_digest)
    return State(
        name=f"trained at {bits} bits, activations at 8",
        model=trained.lower(schemes),
        macs=count_macs(module, calibration),
        parameters=count_parameters(module),
        seconds=seconds,
    )


def _lowerer(module: nn.Module, calibration: Inputs) -> Lowerer:
    reference = export_reference(module, calibration, default_interpreter(), name="resnet20")
    return Lowerer(reference, get_dialect("ort-cpu"), calibration, CalibrationSettings(), ContentStore(None))


def _report(states: Sequence[State], calibration: Inputs, evaluation: Labelled) -> None:
    backend = OrtCpuBackend()
    compiled: dict[str, CompiledModel] = {state.name: backend.compile(state.model, threads=1) for state in states}
    batch = {name: array[:1] for name, array in calibration.items()}
    stats = time_paired(
        compiled,
        states[0].name,
        batch,
        THOROUGH,
        threads=1,
        batch_size=1,
        clock=backend.clock,
        processor_clock=backend.processor_clock,
    )
    first, rows = states[0], []
    for state in states:
        scorer = backend.compile(state.model, threads=available_cores())
        answers = run_batches(scorer, evaluation.inputs)[0].argmax(axis=1)
        rows.append(
            (
                state.name,
                f"{float(np.mean(answers == evaluation.labels)):.4f}",
                f"{state.macs / first.macs:.3f}",
                f"{state.parameters / first.parameters:.3f}",
                *latency_cells(stats[state.name]),
                f"{state.model.size_bytes / first.model.size_bytes:.3f}",
                f"{state.seconds:.0f}",
            )
        )
    device = backend.fingerprint()
    sys.stdout.write(
        f"resnet20 on {device.device} ({', '.join(device.instructions)}), {device.runtime}\n"
        f"timed on 1 thread, batch 1; trained on {available_cores()} cores; {len(evaluation):,} test images\n"
    )
    header = ("network", "top-1", "× macs", "× params", *LATENCY, "× bytes", "made in s")
    sys.stdout.write(plain_table(header, rows) + "\n")


if __name__ == "__main__":
    sys.exit(main())
