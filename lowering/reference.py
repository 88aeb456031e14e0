"""The reference model: the normalised FP32 network that every artifact is written from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import onnx
from google.protobuf.descriptor import FieldDescriptor

from bitfront.core import Artifact, Batching, ModelError, digest
from bitfront.lowering.batching import infer_batching
from bitfront.lowering.compact import Source
from bitfront.lowering.interpreter import Interpreter
from bitfront.lowering.normalise import OPTIONAL_STEPS, normalise
from bitfront.lowering.serialise import artifact_of, copy_fields, file_of, message_of
from bitfront.lowering.weight_files import LIMIT, WeightFile, has_detached, inline_bytes

_VALUES = ("raw_data", "float_data", "external_data", "data_location")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceModel:
    """A network in FP32, loaded, checked and normalised.

    Attributes:
        source: File or module it came from, for messages.
        proto: Normalised ONNX model (``lowering.normalise``), with the large initialisers of a large network detached
            (``lowering.weight_files``); never modified.
        fingerprint: Digest of the whole network.
        architecture: Digest of the network without its floating-point weights' values.
        input_shapes: Input name → shape, None for a dynamic axis.
        input_types: Input name → numpy dtype name; float32 for BF16, which numpy does not have.
        output_names: In order.
        output_shapes: Output name → shape as far as known; None for an unknown rank.
        interpreter: Runs the network and graphs cut from it.
        given: The network as it was given, before anything was normalised; None where it was exported from a module,
            whose export is ``proto``.
        batching: Which axis of each input and output counts the samples.
        sources: Initialiser of ``proto`` → what it was computed from in the given network; written files hold that
            where it is smaller.
        skipped_steps: Steps of normalising that were left out, since they would have changed what the network answers.
        module_paths: Node → path of the PyTorch module that it was exported from, by which layers of a file are called
            whose weights do not tell it.
        applied_steps: Steps of normalising that changed the network, of ``normalise.RECORDED_STEPS``.
        fixed_inputs: Input → the one number it always is, for inputs that decided which branch of an If is searched.
        notices: What a person should know of how the network was read.
        weights: Holds detached initialisers; None where none are.
    """

    source: str
    proto: onnx.ModelProto
    fingerprint: str
    architecture: str
    input_shapes: Mapping[str, tuple[int | None, ...]]
    input_types: Mapping[str, str]
    output_names: tuple[str, ...]
    output_shapes: Mapping[str, tuple[int | None, ...] | None]
    interpreter: Interpreter = field(repr=False, compare=False)
    given: onnx.ModelProto | None = None
    batching: Batching = field(default_factory=Batching)
    sources: Mapping[str, Source] = field(default_factory=dict)
    skipped_steps: tuple[str, ...] = ()
    module_paths: Mapping[str, str] = field(default_factory=dict)
    applied_steps: tuple[str, ...] = ()
    fixed_inputs: Mapping[str, float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    weights: WeightFile | None = field(default=None, repr=False, compare=False)

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the network is fixed to; None where it is dynamic."""
        return self.batching.fixed

    @property
    def runnable(self) -> onnx.ModelProto:
        """The network as it was given; ``proto`` where it was exported from a module."""
        return self.proto if self.given is None else self.given

    @property
    def given_artifact(self) -> Artifact | None:
        """The network as it was given, as it is deployed; None where it was exported from a module."""
        return None if self.given is None else artifact_of(self.given)


def make_reference(
    model: onnx.ModelProto,
    source: str,
    interpreter: Interpreter,
    *,
    skipped: Collection[str] = (),
    fixed_inputs: Mapping[str, float] | None = None,
    weights: WeightFile | None = None,
) -> ReferenceModel:
    """Normalise a checked model; returns it with its fingerprints.

    Args:
        model: The model; not modified.
        source: File or module it came from, for messages.
        interpreter: Computes constants; kept with the network.
        skipped: Steps of normalising to leave out.
        fixed_inputs: Input of one element → the number it always is, by which branches may be decided.
        weights: Where large initialisers go that normalising makes; None keeps them in the model.

    Raises:
        ModelError: If it cannot be normalised, has no input or no output, or is too large for one file.
    """
    found = normalise(model, source, interpreter, skipped=skipped, fixed_inputs=fixed_inputs or {}, weights=weights)
    made = replace(
        read_reference(found.proto, source, interpreter),
        sources=found.sources,
        skipped_steps=tuple(step for step in OPTIONAL_STEPS if step in skipped),
        applied_steps=found.applied_steps,
        fixed_inputs=found.fixed_inputs,
        module_paths=found.module_paths,
        # The given graph's: sizes that inference fills in may be those of other axes.
        batching=infer_batching(model.graph, inferred=found.proto.graph),
        weights=weights,
    )
    if not found.sources:
        return made
    # What is written depends on what constants are computed from as well.
    written = [message_of(part) for name in sorted(found.sources) for part in found.sources[name]]
    return replace(made, fingerprint=digest(made.fingerprint, written))


def read_reference(proto: onnx.ModelProto, source: str, interpreter: Interpreter) -> ReferenceModel:
    """The reference model of a network that was normalised before, such as another reference model's.

    Raises:
        ModelError: If it has no input or no output, or is too large for one file.
    """
    if not proto.graph.input or not proto.graph.output or not proto.graph.node:
        raise ModelError(
            f"'{source}': the network has {len(proto.graph.input)} inputs, {len(proto.graph.node)} nodes and "
            f"{len(proto.graph.output)} outputs; at least one of each is needed",
            "export the network with its input and its output; 'search inspect' shows what a file holds",
        )
    size = inline_bytes(proto.graph.initializer)
    if size > LIMIT and not has_detached(proto):
        raise ModelError(
            f"'{source}': {size:,} bytes do not fit one ONNX file (at most {LIMIT:,})",
            "search a part of the network, or a smaller one",
        )
    inputs = {value.name: value.type.tensor_type for value in proto.graph.input}
    outputs = {value.name: value.type.tensor_type for value in proto.graph.output}
    for value in (*proto.graph.input, *proto.graph.output):
        if not value.type.HasField("tensor_type"):
            raise ModelError(
                f"'{source}': '{value.name}' is no tensor", "sequences, maps and optionals are not handled"
            )
    return ReferenceModel(
        source=source,
        proto=proto,
        fingerprint=digest(file_of(proto)),
        architecture=digest(_without_values(proto)),
        input_shapes={name: _shape(kind) or () for name, kind in inputs.items()},
        input_types={name: _numpy_type(kind.elem_type) for name, kind in inputs.items()},
        output_names=tuple(outputs),
        output_shapes={name: _shape(kind) for name, kind in outputs.items()},
        interpreter=interpreter,
        batching=infer_batching(proto.graph),
    )


def with_batch_axes(reference: ReferenceModel, told: Mapping[str, int | None]) -> ReferenceModel:
    """The reference model with the batch axes that a person says: input or output → axis, None for none.

    Raises:
        UsageError: If one is no input or output, or does not have that axis.
    """
    if not told:
        return reference
    graph = reference.runnable.graph
    return replace(reference, batching=infer_batching(graph, told, inferred=reference.proto.graph))


def with_batching_of(reference: ReferenceModel, origin: ReferenceModel) -> ReferenceModel:
    """The reference model of a network made from another one, with that one's batch axes, told and measured ones too.

    Args:
        reference: Its outputs are those of ``origin``, in order; they may be called otherwise.
        origin: The network it was made from.
    """
    batching, outputs = origin.batching, dict(zip(origin.output_names, reference.output_names, strict=False))
    return replace(
        reference,
        batching=replace(
            batching,
            outputs={outputs[name]: axis for name, axis in batching.outputs.items() if name in outputs},
            certain=frozenset(outputs[name] for name in batching.certain if name in outputs),
        ),
    )


def _numpy_type(kind: int) -> str:
    held = onnx.TensorProto.FLOAT if kind == onnx.TensorProto.BFLOAT16 else kind
    return str(onnx.helper.tensor_dtype_to_np_dtype(held))


def _shape(kind: onnx.TypeProto.Tensor) -> tuple[int | None, ...] | None:
    if not kind.HasField("shape"):
        return None
    return tuple(axis.dim_value if axis.dim_value > 0 else None for axis in kind.shape.dim)


def _is_no_value(field: FieldDescriptor) -> bool:
    return field.name not in _VALUES


def _without_values(proto: onnx.ModelProto) -> bytes:
    bare = copy_fields(proto, lambda field: field.name != "graph")
    bare.graph.CopyFrom(copy_fields(proto.graph, lambda field: field.name != "initializer"))
    for tensor in proto.graph.initializer:
        is_weight = tensor.data_type == onnx.TensorProto.FLOAT
        bare.graph.initializer.append(copy_fields(tensor, _is_no_value) if is_weight else tensor)
    return bytes(bare.SerializeToString(deterministic=True))
