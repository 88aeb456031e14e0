"""``search measure``: time model files against each other, interleaved, under the protocol of a search."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitfront.core import (
    Array,
    Artifact,
    BackendError,
    BackendUnavailableError,
    Batching,
    DataError,
    LatencyStats,
    ModelError,
    UsageError,
)
from bitfront.core.artifact import file_blob, load_artifact
from bitfront.core.files import check_readable
from bitfront.core.formatting import first_line
from bitfront.search.arguments import arguments, values
from bitfront.search.console.tables import Narrowing, write_table
from bitfront.search.console.terminal import write_prose
from bitfront.search.inputs.arrays import LABELS, cast, fits, shown_shape
from bitfront.search.inputs.data.archive import array_names, read_npz

if TYPE_CHECKING:
    from bitfront.backends.base import Backend, CompiledModel, ExecutedLayer

USAGE = "search measure MODEL [MODEL ...] [options]"
DESCRIPTION = """\
Time ONNX files against each other: interleaved in one process, threads pinned, each round in another order. The first
model is the reference that ratios are taken to.

  search measure fp32.onnx int8.onnx --inputs eval.npz --batch-size 8
  search measure fp32.onnx int8.onnx --profile"""
Declared = Mapping[str, tuple[tuple[int | None, ...], str]]
COLUMNS = ("model", "median", "p90", "95 % interval", "ratio", "95 % interval", "size")
_MOST_VALUES = 2**28
_DROPPED = {2: "p90", 3: "the median's interval", 5: "the ratio's interval"}  # on a narrow terminal, one by one
FOOTPRINT_COLUMNS = ("engine", "weights", "activations")
PROFILE_COLUMNS = ("node", "operator", "precision", "detail", "µs", "share")


def build_parser() -> arguments.Parser:
    """The command's options."""
    parser = arguments.Parser("search measure", USAGE, DESCRIPTION)
    parser.add_argument(
        "models", type=values.path, nargs="+", metavar="MODEL", help="ONNX files; the first is the reference"
    )
    group = parser.add_argument_group("Measurement")
    arguments.add_runtime(group, batch=False)
    group.add_argument(
        "--batch-size",
        type=values.positive,
        metavar="N",
        help="samples per inference (default: the models' fixed batch, else 1)",
    )
    group.add_argument(
        "--inputs", type=values.path, metavar="NPZ", help="arrays named like the inputs (default: random normal values)"
    )
    arguments.add_batch_axis(group)
    group.add_argument(
        "--profile", action="store_true", help="also list what each model runs, operator by operator (default: off)"
    )
    return parser


def run(argv: Sequence[str]) -> int:
    """Time the models and print the table.

    Raises:
        EngineError: For everything the person can mend.
    """
    from bitfront.backends.timing import THOROUGH, time_paired
    from bitfront.core.formatting import latency, ratio, size

    args = arguments.parse(build_parser(), argv)
    backend = arguments.backend_of(args)
    artifacts = {_label(args.models, index): read_model(path) for index, path in enumerate(args.models)}
    reference = next(iter(artifacts))
    declared = {label: declared_inputs(artifact.data) for label, artifact in artifacts.items()}
    _check_alike(declared, reference)
    layouts = {label: batching(artifact.data, dict(args.batch_axis)) for label, artifact in artifacts.items()}
    batch = _batch(args.batch_size, {label: found.fixed for label, found in layouts.items() if found.fixed})
    wanted, layout = declared[reference], layouts[reference]
    _check_memory(wanted, layout, batch)
    if args.inputs is None:
        inputs = random_inputs(wanted, layout, batch, reference)
    else:
        inputs = _given(args.inputs, wanted, layout, batch)
    compiled = {label: _compile(backend, label, artifact, args.threads, batch) for label, artifact in artifacts.items()}
    stats = time_paired(
        compiled,
        reference,
        inputs,
        THOROUGH,
        threads=args.threads,
        batch_size=batch,
        clock=backend.clock,
        processor_clock=backend.processor_clock,
    )

    footprints = {label: model.memory_usage() for label, model in compiled.items()}
    told = any(footprint.known for footprint in footprints.values())

    def row(label: str, found: LatencyStats) -> tuple[str, ...]:
        return (
            label,
            latency(found.median_ms),
            latency(found.p90_ms),
            f"{latency(found.ci_low_ms)} to {latency(found.ci_high_ms)}",
            ratio(found.ratio),
            f"{found.ratio_low:.3f} to {found.ratio_high:.3f}",
            size(artifacts[label].size_bytes),
            *(map(size, footprints[label].to_json().values()) if told else ()),
        )

    columns = (*COLUMNS, *FOOTPRINT_COLUMNS) if told else COLUMNS
    narrowings = [Narrowing(column=column, name=name) for column, name in _DROPPED.items()]
    write_table(
        sys.stdout, columns, [row(label, found) for label, found in stats.items()], names=(0,), narrowings=narrowings
    )
    device = backend.fingerprint()
    drawn = "random inputs" if args.inputs is None else f"inputs from {args.inputs}"
    write_prose(
        sys.stdout,
        "",
        f"{backend.name} ({device.runtime}) on {device.device}, {args.threads} thread{'s' * (args.threads != 1)}, "
        f"batch {batch}, {drawn}; {stats[reference].rounds} interleaved rounds",
    )
    if args.profile:
        for label, model in compiled.items():
            _write_profile(label, model.profile(inputs), backend.name)
    return 0


def _write_profile(label: str, layers: Sequence[ExecutedLayer], backend: str) -> None:
    """Print a model's operators in execution order; profiling slows it down, so only the shares are comparable."""
    write_prose(sys.stdout, "", f"{label}:")
    if not layers:
        write_prose(sys.stdout, f"{backend} does not tell what it runs")
        return
    write_table(sys.stdout, PROFILE_COLUMNS, profile_rows(layers), names=(0,), narrowings=[Narrowing(column=3)])


def profile_rows(layers: Sequence[ExecutedLayer]) -> list[tuple[str, ...]]:
    """The profile's rows, one per executed layer, one cell per column of ``PROFILE_COLUMNS``."""
    from bitfront.core.formatting import MISSING, number

    total = sum(layer.latency_us or 0.0 for layer in layers)

    def row(layer: ExecutedLayer) -> tuple[str, ...]:
        latency = layer.latency_us
        return (
            ", ".join(layer.nodes) or layer.name,
            layer.kind,
            layer.precision or MISSING,
            layer.detail or MISSING,
            MISSING if latency is None else number(latency),
            MISSING if latency is None or not total else f"{latency / total:.1%}",
        )

    return [row(layer) for layer in layers]


def read_model(path: Path) -> Artifact:
    """A model file, with the settings that lie beside it; external data is put into it, unless that is beyond 2 GB.

    Raises:
        ModelError: If it cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    from bitfront.lowering.external import external_tensors, network_bytes
    from bitfront.lowering.weight_files import LIMIT

    check_readable(path, ModelError, "an ONNX file")
    try:
        artifact = load_artifact(path)
        if not external_tensors(onnx.load_model_from_string(artifact.data)):
            return artifact
        if len(artifact.files) > 1:
            return artifact
        model = onnx.load(str(path), load_external_data=False)
        if network_bytes(path, model) > LIMIT:
            entries = (entry for tensor in external_tensors(model) for entry in tensor.external_data)
            names = {entry.value for entry in entries if entry.key == "location"}
            main = {path.name: artifact.files[artifact.main]}
            files = main | {name: file_blob(path.parent / name) for name in sorted(names)}
            return Artifact(files=files, main=path.name, settings=artifact.settings)
        return Artifact.onnx(onnx.load(str(path)).SerializeToString(deterministic=True), artifact.settings)
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise ModelError(f"'{path}' cannot be read as ONNX: {first_line(error)}", "copy or export it again") from error


def declared_inputs(model: bytes) -> Declared:
    """Input name → shape as the model declares it (None for a dynamic axis) and numpy dtype name."""
    import onnx

    graph = onnx.load_model_from_string(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    kinds = {value.name: value.type.tensor_type for value in graph.input if value.name not in constants}
    return {
        name: (
            tuple(axis.dim_value if axis.dim_value > 0 else None for axis in kind.shape.dim),
            str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)),
        )
        for name, kind in kinds.items()
    }


def batching(model: bytes, told: Mapping[str, int | None]) -> Batching:
    """The batch axes of a model's inputs and outputs.

    Args:
        model: The file.
        told: Input or output → axis, as a person says.

    Raises:
        UsageError: If one is no input or output, or does not have that axis.
    """
    import onnx

    from bitfront.lowering.batching import infer_batching

    return infer_batching(onnx.load_model_from_string(model).graph, told)


def _label(models: Sequence[Path], index: int) -> str:
    """The model's path; with a number where a file is given again (an A/A test)."""
    earlier = list(models[:index]).count(models[index])
    return f"{models[index]} ({earlier + 1})" if earlier else str(models[index])


def _check_alike(declared: Mapping[str, Declared], reference: str) -> None:
    expected = declared[reference]
    for label, inputs in declared.items():
        if set(inputs) != set(expected):
            raise ModelError(
                f"'{label}': inputs {', '.join(inputs)} differ from those of '{reference}': {', '.join(expected)}",
                "only models with the same inputs can be timed against each other",
            )


def _compile(backend: Backend, label: str, artifact: Artifact, threads: int, batch: int) -> CompiledModel:
    try:
        return backend.compile(artifact, threads=threads, batch_size=batch)
    except BackendUnavailableError:
        raise
    except BackendError as error:
        raise BackendError(f"'{label}': {error.message}", error.hint) from error


def _batch(asked: int | None, fixed: Mapping[str, int]) -> int:
    """The batch to time in; ``fixed`` is model → the batch it insists on."""
    if len(set(fixed.values())) > 1:
        listed = ", ".join(f"'{label}' {size}" for label, size in fixed.items())
        raise UsageError(f"models have different fixed batches: {listed}", "measure them one by one")
    for label, size in fixed.items():
        if asked is not None and asked != size:
            raise UsageError(f"--batch-size: got {asked}, but '{label}' has a fixed batch of {size}", "leave it out")
        return size
    return asked or 1


def _check_memory(declared: Declared, layout: Batching, batch: int) -> None:
    """Refuse a batch whose inputs alone would not fit, before they are made."""
    sizes = [
        math.prod(size or 1 for place, size in enumerate(shape) if place != layout.input_axis(name))
        for name, (shape, _) in declared.items()
    ]
    values = batch * max(sizes, default=1)
    if values > _MOST_VALUES:
        raise UsageError(
            f"--batch-size: a batch of {batch} has inputs of {values:,} values, expected at most {_MOST_VALUES:,}",
            "give a smaller batch",
        )


def random_inputs(declared: Declared, layout: Batching, batch: int, label: str) -> dict[str, Array]:
    """Random normal values for every input, zeros for whole numbers.

    Raises:
        UsageError: If a shape is not known.
    """
    generator = np.random.default_rng(0)
    inputs: dict[str, Array] = {}
    for name, (shape, dtype) in declared.items():
        axis = layout.input_axis(name)
        if any(size is None for place, size in enumerate(shape) if place != axis):
            raise UsageError(
                f"'{label}': input '{name}' has dynamic axes besides the batch: {shown_shape(shape, axis)}",
                "give arrays with --inputs data.npz",
            )
        sizes = [batch if place == axis else size or 1 for place, size in enumerate(shape)]
        # Zeros for whole numbers: they are valid whatever they index.
        values = generator.standard_normal(sizes) if dtype.startswith("float") else np.zeros(sizes)
        inputs[name] = np.asarray(values, dtype=dtype)
    return inputs


def _given(path: Path, declared: Declared, layout: Batching, batch: int) -> dict[str, Array]:
    names = [name for name in array_names(path) if name != LABELS or name in declared]
    if set(names) != set(declared):
        raise DataError(
            f"'{path}': expected arrays named {', '.join(declared)}, got {', '.join(names) or 'none'}",
            "name them as the models' inputs are",
        )
    inputs: dict[str, Array] = {}
    for name, array in read_npz(path, tuple(declared)).items():
        (shape, dtype), axis, where = declared[name], layout.input_axis(name), f"'{path}': array '{name}'"
        if not fits(array.shape, shape, axis):
            hint = f"give arrays of the shapes that 'search inspect' shows, or say --batch-axis {name}=AXIS"
            raise DataError(f"{where}: expected shape {shown_shape(shape, axis)}, got {array.shape}", hint)
        if not array.size:
            raise DataError(f"{where} holds no samples", "give one sample or more")
        rows = layout.samples(name, array, batch)
        inputs[name] = cast(np.resize(rows, (batch, *rows.shape[1:])), dtype, where)
    return layout.feed(inputs)
