"""The reference model: the normalised FP32 network that every artifact is written from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import onnx

from bitfront.core import Batching, ModelError, digest
from bitfront.lowering.batching import infer_batching
from bitfront.lowering.compact import Source
from bitfront.lowering.interpreter import Interpreter
from bitfront.lowering.normalise import OPTIONAL_STEPS, normalise

_PROTO_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceModel:
    """A network in FP32, loaded, checked and normalised.

    Attributes:
        source: File or module it came from, for messages.
        proto: Normalised ONNX model (``lowering.normalise``); never modified.
        fingerprint: Digest of the whole network.
        architecture: Digest of the network without its floating-point weights' values.
        input_shapes: Input name → shape, None for a dynamic axis.
        input_types: Input name → numpy dtype name.
        output_names: In order.
        output_shapes: Output name → shape as far as known; None for an unknown rank.
        interpreter: Runs the network and graphs cut from it.
        given: The network as it was given, before anything was normalised, as one ONNX file; None where it was
            exported from a module, whose export is ``proto``.
        batching: Which axis of each input and output counts the samples.
        sources: Initialiser of ``proto`` → what it was computed from in the given network; written files hold that
            where it is smaller.
        skipped_steps: Steps of normalising that were left out, since they would have changed what the network answers.
        module_paths: Node → path of the PyTorch module that it was exported from, by which layers of a file are called
            whose weights do not tell it.
        applied_steps: Steps of normalising that changed the network, of ``normalise.RECORDED_STEPS``.
        fixed_inputs: Input → the one number it always is, for inputs that decided which branch of an If is searched.
        notices: What a person should know of how the network was read.
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
    given: bytes | None = None
    batching: Batching = field(default_factory=Batching)
    sources: Mapping[str, Source] = field(default_factory=dict)
    skipped_steps: tuple[str, ...] = ()
    module_paths: Mapping[str, str] = field(default_factory=dict)
    applied_steps: tuple[str, ...] = ()
    fixed_inputs: Mapping[str, float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the network is fixed to; None where it is dynamic."""
        return self.batching.fixed


def make_reference(
    model: onnx.ModelProto,
    source: str,
    interpreter: Interpreter,
    *,
    skipped: Collection[str] = (),
    fixed_inputs: Mapping[str, float] | None = None,
) -> ReferenceModel:
    """Normalise a checked model; returns it with its fingerprints.

    Args:
        model: The model; not modified.
        source: File or module it came from, for messages.
        interpreter: Computes constants; kept with the network.
        skipped: Steps of normalising to leave out.
        fixed_inputs: Input of one element → the number it always is, by which branches may be decided.

    Raises:
        ModelError: If it cannot be normalised, has no input or no output, or is too large for one file.
    """
    found = normalise(model, source, interpreter, skipped=skipped, fixed_inputs=fixed_inputs or {})
    made = replace(
        read_reference(found.proto, source, interpreter),
        sources=found.sources,
        skipped_steps=tuple(step for step in OPTIONAL_STEPS if step in skipped),
        applied_steps=found.applied_steps,
        fixed_inputs=found.fixed_inputs,
        module_paths=found.module_paths,
        # The given graph's: sizes that inference fills in may be those of other axes.
        batching=infer_batching(model.graph, inferred=found.proto.graph),
    )
    if not found.sources:
        return made
    # What is written depends on what constants are computed from as well.
    written = [
        part.SerializeToString(deterministic=True) for name in sorted(found.sources) for part in found.sources[name]
    ]
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
    if proto.ByteSize() > _PROTO_LIMIT:
        raise ModelError(
            f"'{source}': {proto.ByteSize():,} bytes do not fit one ONNX file (at most {_PROTO_LIMIT:,})",
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
        fingerprint=digest(proto.SerializeToString(deterministic=True)),
        architecture=digest(_without_values(proto)),
        input_shapes={name: _shape(kind) or () for name, kind in inputs.items()},
        input_types={name: str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)) for name, kind in inputs.items()},
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
    graph = reference.proto.graph if reference.given is None else onnx.load_model_from_string(reference.given).graph
    return replace(reference, batching=infer_batching(graph, told, inferred=reference.proto.graph))


def _shape(kind: onnx.TypeProto.Tensor) -> tuple[int | None, ...] | None:
    if not kind.HasField("shape"):
        return None
    return tuple(axis.dim_value if axis.dim_value > 0 else None for axis in kind.shape.dim)


def _without_values(proto: onnx.ModelProto) -> bytes:
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for tensor in bare.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            for field in ("raw_data", "float_data"):
                tensor.ClearField(field)
    return bytes(bare.SerializeToString(deterministic=True))
