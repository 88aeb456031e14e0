"""Export of PyTorch modules as reference models, by the dynamo exporter.

Exporting takes seconds, nearly all of it for tracing and translation, which depend on a module's structure alone. An
``Exporter`` keeps the untouched graph of each structure, where initialisers still have the parameters' names, and
writes the weights of later modules into it, those with fewer channels too; folding, fusing and normalisation follow as
for any other network. What comes out is run beside the module, and exported anew where the two disagree: where widths
are numbers in the graph, as a flattened map's is.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from bitfront.core import Array, Inputs, ModelError, digest
from bitfront.lowering.calibration import run_network
from bitfront.lowering.equivalence import equivalent_to_given
from bitfront.lowering.interpreter import Interpreter
from bitfront.lowering.module_calls import arguments, bound, caches_off, call, has_names, named_tensors
from bitfront.lowering.reference import ReferenceModel, make_reference, read_reference
from bitfront.lowering.shapes import infer_shapes

if TYPE_CHECKING:
    import torch

_FAILURES = (RuntimeError, TypeError, ValueError, KeyError, AttributeError, NotImplementedError)
_SAMPLES = 4  # that a module and its graph must agree on
_TOLERANCE = 1e-3  # of the largest output
Dynamic = Mapping[str, Collection[int]]


def export_reference(
    module: torch.nn.Module,
    inputs: Inputs,
    interpreter: Interpreter,
    *,
    name: str,
    batch: int | None = None,
    dynamic: Dynamic | None = None,
    others: Inputs | None = None,
) -> ReferenceModel:
    """Export a module in evaluation mode as a reference model; its own mode is restored.

    Args:
        module: The trained network.
        inputs: One array per input, shape (n, …), passed to ``forward`` as ``module_calls`` says; the keys name the
            ONNX inputs.
        interpreter: Computes constants; kept with the network.
        name: Workload's name, for messages.
        batch: A fixed batch size, or None for a dynamic one.
        dynamic: Input → its axes that vary beside the first.
        others: Inputs of other sizes in those axes, on which the export is compared with the module; None for none.

    Raises:
        ModelError: If the exporter fails; its own reason is in the message. Or if the export does not answer as the
            module on ``others``.
    """
    program = _optimised(_program(module, inputs, name, batch, dynamic or {}))
    exported = replace(make_reference(program, name, interpreter), given=program)
    reference = replace(equivalent_to_given(exported, inputs), given=None)
    if others is not None:
        _check_others(module, reference, others)
    return reference


class Exporter:
    """Exports modules that mostly have the same structure: really the first time, by exchanging weights then.

    What ``reference`` gives depends on the module alone, not on those before it, and is what ``export_reference``
    gives up to the names of inner tensors. It is the graph alone, as a run keeps it: of how that was normalised nothing
    is known.

    Args:
        inputs: As for ``export_reference``; what modules and graphs are compared on.
        interpreter: As for ``export_reference``; runs the graphs that are compared.
        name: Workload's name, for messages.
        batch: A fixed batch size, or None for a dynamic one.
        dynamic: As for ``export_reference``.
    """

    def __init__(
        self,
        inputs: Inputs,
        interpreter: Interpreter,
        name: str,
        *,
        batch: int | None = None,
        dynamic: Dynamic | None = None,
    ) -> None:
        count = batch or _SAMPLES
        self._inputs = {key: np.resize(array, (count, *array.shape[1:])) for key, array in inputs.items()}
        self._interpreter = interpreter
        self._name = name
        self._batch = batch
        self._dynamic = dynamic or {}
        self._graphs: dict[str, onnx.ModelProto] = {}

    def reference(self, module: torch.nn.Module) -> ReferenceModel:
        """Export a module on the CPU, in evaluation mode; its own mode is restored.

        Raises:
            ModelError: If the exporter fails.
        """
        structure = _structure(module)
        kept = self._graphs.get(structure)
        reference = None if kept is None else self._filled(kept, module)
        if reference is None:
            program = _program(module, self._inputs, self._name, self._batch, self._dynamic)
            self._graphs[structure] = program.model_proto
            reference = self._filled(self._graphs[structure], module)
        reference = reference or self._exported_anew(module)
        # A model variant is kept as its graph alone, and is known by that.
        bare = read_reference(reference.proto, self._name, self._interpreter)
        return replace(bare, module_paths=reference.module_paths)

    def _exported_anew(self, module: torch.nn.Module) -> ReferenceModel:
        return export_reference(
            module, self._inputs, self._interpreter, name=self._name, batch=self._batch, dynamic=self._dynamic
        )

    def _filled(self, graph: onnx.ModelProto, module: torch.nn.Module) -> ReferenceModel | None:
        """The graph with the module's weights; None where that is not the module."""
        import torch

        proto = _with_weights(graph, module)
        if proto is None:
            return None
        program = torch.onnx.ONNXProgram(ir.from_proto(proto), None)
        try:
            reference = make_reference(_optimised(program), self._name, self._interpreter)
            found = run_network(reference.proto, self._inputs, self._interpreter)
        except (ModelError, *_FAILURES):
            return None  # widths that were written into the graph
        return reference if _agree(found, _outputs(module, self._inputs)) else None


def _program(
    module: torch.nn.Module, inputs: Inputs, name: str, batch: int | None, dynamic: Dynamic
) -> torch.onnx.ONNXProgram:
    """The exporter's graph as it comes, before anything is folded."""
    import torch

    # A value without axes is the same for all samples.
    count = batch or _example_batch(inputs, dynamic)
    example = _tensors(
        {key: np.resize(array, (count, *array.shape[1:])) if array.ndim else array for key, array in inputs.items()}
    )
    placed, keyed = arguments(module, example)
    # A named dimension makes the exporter refuse a network that fixes its batch; an automatic one would not. Of other
    # axes it finds out itself which are equal.
    first = {} if batch is not None else {0: torch.export.Dim("batch")}
    shapes = None
    if batch is None or dynamic:
        sizes = {
            key: {**first, **dict.fromkeys(dynamic.get(key, ()), torch.export.Dim.DYNAMIC)} if tensor.ndim else {}
            for key, tensor in example.items()
        }
        shapes = bound(module, *arguments(module, sizes))
    names: list[str] = []
    training = module.training
    module.eval()
    try:
        with _quiet(), torch.no_grad(), caches_off(module), _flat_outputs(module, names):
            program = torch.onnx.export(
                module,
                placed,
                kwargs=keyed or None,
                dynamo=True,
                input_names=_listed(arguments(module, {key: key for key in inputs})),
                dynamic_shapes=shapes,
                verbose=False,
                optimize=False,
            )
    except (SystemExit, *_FAILURES) as error:  # a module may leave Python while it is traced
        kind = "a dynamic batch" if batch is None else f"batch {batch}"
        varying = [f"axis {axis} of '{key}'" for key, axes in dynamic.items() for axis in axes]
        also = f" and any size of {', '.join(varying)}" if varying else ""
        pad = "pad samples to one length, " if varying else ""
        raise ModelError(
            f"workload '{name}': PyTorch could not export the module with {kind}{also} ({_reason(error)})",
            f"{pad}try --batch-size with a fixed size, or export to ONNX yourself and use --model",
        ) from error
    finally:
        module.train(training)
    assert program is not None
    if not program.model.graph.outputs:
        raise ModelError(
            f"workload '{name}': forward of {type(module).__name__} returns no tensor",
            "return tensors, or dictionaries, dataclasses or tuples of them",
        )
    _name_outputs(program.model.graph, names)
    return program


def _example_batch(inputs: Inputs, dynamic: Dynamic) -> int:
    """Samples of an example: an axis of size 1 would be fixed, and one as long as another might be taken for it."""
    taken = {inputs[key].shape[axis] for key, axes in dynamic.items() for axis in axes}
    return next(count for count in range(2, len(taken) + 3) if count not in taken)


def _listed(passed: tuple[tuple[str, ...], Mapping[str, str]]) -> list[str]:
    return [name for name in (*passed[0], *passed[1].values()) if isinstance(name, str)]


@contextmanager
def _flat_outputs(module: torch.nn.Module, names: list[str]) -> Iterator[None]:
    """Named outputs come out as a tuple of their tensors, which is what can be exported, and ``names`` has the names.

    A hook keeps the module itself, and with it the paths of its parts, as they are.
    """
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        yield
        return

    def flatten(_: object, __: object, outputs: object) -> object:
        if not has_names(outputs):
            return None
        found = named_tensors(outputs)
        names[:] = found
        return tuple(found.values())

    handle = module.register_forward_hook(flatten)
    try:
        yield
    finally:
        handle.remove()


def _name_outputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Name outputs, in place, those alone that have a name: by copies, since one tensor may be several outputs."""
    taken = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
    taken |= {value.name for value in graph.inputs}
    seen = set()
    for place, value in enumerate(graph.outputs):
        if not names and id(value) not in seen:
            seen.add(id(value))
            continue
        name, suffix = names[place] if names else f"{value.name}_copy", 2
        while name in taken:
            name, suffix = f"{names[place] if names else value.name}_{suffix}", suffix + 1
        taken.add(name)
        copy = ir.node("Identity", [value])
        copy.outputs[0].name = name
        copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
        graph.append(copy)
        graph.outputs[place] = copy.outputs[0]


def _check_others(module: torch.nn.Module, reference: ReferenceModel, others: Inputs) -> None:
    try:
        found = run_network(reference.proto, others, reference.interpreter)
    except ModelError as error:
        raise _length_in_graph(reference.source, others, error.message) from error
    if not _agree(found, _outputs(module, others)):
        raise _length_in_graph(reference.source, others, "its answers are others than the module's")


def _length_in_graph(source: str, others: Inputs, why: str) -> ModelError:
    shapes = ", ".join(f"'{key}' {array.shape}" for key, array in others.items())
    return ModelError(
        f"workload '{source}': exported from the longest of the calibration samples, the module fails for {shapes}: "
        f"{why}",
        "sizes of that sample were written into the graph: pad samples to one length, or compute them from tensors' "
        "shapes in forward",
    )


def _reason(error: BaseException) -> str:
    """The first line of the error that stopped the exporter: its own errors name their step, and that one as cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _optimised(program: torch.onnx.ONNXProgram) -> onnx.ModelProto:
    with _quiet():
        program.optimize()
    return program.model_proto


def _structure(module: torch.nn.Module) -> str:
    """Digest of the layers' paths and classes; a module that was traced has its own code besides."""
    layers = [(path, type(part).__module__, type(part).__qualname__) for path, part in module.named_modules()]
    code = [str(part.code) for part in module.modules() if hasattr(part, "graph") and hasattr(part, "code")]
    return digest(layers, code)


def _with_weights(graph: onnx.ModelProto, module: torch.nn.Module) -> onnx.ModelProto | None:
    """A copy with the module's parameters, buffers and shapes; None if a parameter is no initialiser of the graph."""
    tensors = dict(chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)))
    names = {tensor.name for tensor in graph.graph.initializer}
    written = {id(tensor) for name, tensor in tensors.items() if name in names}
    if any(tensor.is_floating_point() and id(tensor) not in written for tensor in tensors.values()):
        return None
    proto = onnx.ModelProto()
    proto.CopyFrom(graph)
    for initializer in proto.graph.initializer:
        if initializer.name in tensors:
            value = np.ascontiguousarray(tensors[initializer.name].detach().numpy())
            initializer.CopyFrom(numpy_helper.from_array(value, initializer.name))
    groups = {f"{path}.weight": part.groups for path, part in module.named_modules() if hasattr(part, "groups")}
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "group" and node.input[1] in groups:
                attribute.i = groups[node.input[1]]
    _open_reshapes(proto.graph)
    del proto.graph.value_info[:]
    return infer_shapes(proto, data_prop=True)


def _open_reshapes(graph: onnx.GraphProto) -> None:
    """Let a Reshape that keeps its first axis compute its last one, in place: flattened maps have their width there."""
    made = {output: node for node in graph.node for output in node.output}
    for place, node in reversed(list(enumerate(graph.node))):
        shape = made.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or shape.op_type != "Concat":
            continue
        first, *others = (_constant(made.get(name)) for name in shape.input)
        sizes = [size for part in others if part is not None for size in part]
        if first is None and None not in others and sizes and min(sizes) > 0:
            opened = numpy_helper.from_array(np.array([0, *sizes[:-1], -1], np.int64))
            node.input[1] = f"{node.output[0]}_open"
            del node.attribute[:]  # allowzero alone: here a zero stands for the axis as it is
            graph.node.insert(place, helper.make_node("Constant", [], [node.input[1]], value=opened))


def _constant(node: onnx.NodeProto | None) -> Sequence[int] | None:
    """The whole numbers of a Constant of them."""
    if node is None or node.op_type != "Constant":
        return None
    value = node.attribute[0]
    return tuple(numpy_helper.to_array(value.t).ravel()) if value.name == "value" else tuple(value.ints)


def _outputs(module: torch.nn.Module, inputs: Inputs) -> list[Array]:
    import torch

    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            found = named_tensors(call(module, _tensors(inputs)))
    finally:
        for part, mode in modes:
            part.training = mode
    return [tensor.numpy() for tensor in found.values()]


def _agree(found: Sequence[Array], wanted: Sequence[Array]) -> bool:
    if [array.shape for array in found] != [array.shape for array in wanted]:
        return False
    return all(
        np.allclose(one, other, rtol=0, atol=_TOLERANCE * float(np.abs(other).max(initial=0)))
        for one, other in zip(found, wanted, strict=True)
    )


def _tensors(inputs: Inputs) -> dict[str, torch.Tensor]:
    import torch

    return {key: torch.from_numpy(np.array(array, order="C")) for key, array in inputs.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notices (missing torchvision, deprecations of its own code) off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
