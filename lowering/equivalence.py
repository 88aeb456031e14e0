"""Equivalence of a normalised network to the one given: steps of normalising that change its outputs are left out.

Both run in the interpreter, unoptimised, on a few inputs. Rounding alone may tell them apart: folding a batch norm
rounds weights anew, and a network given in FP16 is coarse itself. How much that may be is measured on the given
network: its constants and inputs are changed by a few roundings of the type it computes in, and

- a floating output may differ by about as much as that changes it (SQNR in dB), in FP32 by no more than
  ``_STRICT_DB`` where it is well conditioned;
- other outputs may differ only where that changes them too: ties of ArgMax, TopK, comparisons.

Not compared: outputs that the given network itself draws anew in every run, and networks that the interpreter cannot
run as given; ``ReferenceModel.notices`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from bitfront.core import Array, Inputs, ModelError
from bitfront.core.batching import take_rows
from bitfront.lowering.graph import GraphView, graphs_of
from bitfront.lowering.interpreter import Interpreter, InterpreterError
from bitfront.lowering.normalise import OPTIONAL_STEPS
from bitfront.lowering.reference import ReferenceModel, make_reference
from bitfront.lowering.shapes import infer_shapes
from bitfront.lowering.weight_files import WeightFile, detach_one, has_detached, tensor_array

_SAMPLES = 4
_DISTURBED_RUNS = 3
_STRICT_DB = 90.0
_MARGIN_DB = 6.0
# Below this the network's own rounding is as large as its answers: nothing can be told from a comparison.
_CHAOTIC_DB = 10.0
_LARGEST_DB = 300.0
# Type → (relative size of one rounding, how many of them the given network is disturbed by).
_ROUNDINGS: Mapping[int, tuple[float, int]] = {
    TensorProto.FLOAT: (2.0**-24, 64),
    TensorProto.FLOAT16: (2.0**-11, 8),
    TensorProto.BFLOAT16: (2.0**-8, 4),
}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def equivalent_to_given(reference: ReferenceModel, inputs: Inputs | None) -> ReferenceModel:
    """The reference model, normalised again without the steps that make it answer otherwise than the given network.

    Args:
        reference: Normalised in all steps, with the network as given.
        inputs: One array per network input, (n, …), of which a few are used; None has some made up.

    Raises:
        ModelError: If its outputs differ whatever is left out; says which output, and by how much.
    """
    if reference.given is None:
        return reference
    feeds = random_inputs(reference) if inputs is None else first_batch(reference, inputs)
    if feeds is None:
        return reference
    try:
        given = _GivenAnswers(reference.given, feeds, reference.interpreter)
    except InterpreterError as error:
        if inputs is None:
            return reference  # made-up inputs may be none that the network takes
        if _answers(reference, feeds) is None:
            return reference  # what reads the same inputs next says what is wrong with them
        name = reference.interpreter.name
        text = f"'{reference.source}' does not run in {name} as given ({_first_line(error)})"
        return _noticed(reference, f"{text}, so the network that is searched could not be compared with it")
    found = given.differences(reference)
    if found:
        reference, found = _repaired(reference, given, found)
    if found:
        raise ModelError(
            f"'{reference.source}': the network could not be brought to the form it is searched in without changing "
            f"what it answers: {'; '.join(found)}",
            "export it with a newer opset, or simplify it first",
        )
    return _noticed(reference, *given.notices(reference.source))


def first_batch(reference: ReferenceModel, inputs: Inputs) -> Inputs | None:
    """A few samples as the network reads them, as many as it insists on; None where an input is missing or empty.

    Args:
        reference: The network.
        inputs: One array per network input, (n, …).
    """
    if any(name not in inputs or not len(inputs[name]) for name in reference.input_shapes):
        return None
    count = reference.fixed_batch or _SAMPLES
    rows = {name: np.arange(count) % len(inputs[name]) for name in reference.input_shapes}
    return reference.batching.feed({name: take_rows(inputs[name], rows[name]) for name in rows})


def random_inputs(reference: ReferenceModel) -> Inputs | None:
    """Random numbers for every input, in its shape and type; None where an input holds other things than numbers."""
    generator = np.random.default_rng(0)
    found: dict[str, Array] = {}
    for name, shape in reference.input_shapes.items():
        kind, batch = np.dtype(reference.input_types[name]), reference.batching.input_axis(name)
        sizes = tuple(size if size is not None else 2 if place == batch else 8 for place, size in enumerate(shape))
        if kind == np.bool_ or np.issubdtype(kind, np.integer):
            found[name] = generator.integers(0, 2, sizes).astype(kind)
        elif kind.kind in "fV":
            found[name] = np.asarray(generator.standard_normal(sizes)).astype(kind)
        else:
            return None
    return found


def _repaired(reference: ReferenceModel, given: _GivenAnswers, found: list[str]) -> tuple[ReferenceModel, list[str]]:
    """The network normalised in as many steps as keep its answers; as it was where none do."""
    skipped = set(OPTIONAL_STEPS)

    def attempt(steps: set[str]) -> tuple[ReferenceModel | None, list[str]]:
        try:
            made = make_reference(
                given.model, reference.source, reference.interpreter, skipped=steps, weights=reference.weights
            )
        except ModelError as error:
            return None, [error.message]
        made = replace(made, given=reference.given)
        return made, given.differences(made)

    best, left = attempt(skipped)
    if best is None or left:
        return reference, left or found
    for step in OPTIONAL_STEPS:
        made, differing = attempt(skipped - {step})
        if made is not None and not differing:
            best, skipped = made, skipped - {step}
    names = ", ".join(f"'{step}'" for step in best.skipped_steps)
    text = f"'{reference.source}': left out of normalising: {names}; with it {'; '.join(found)}"
    return _noticed(best, text), []


def _noticed(reference: ReferenceModel, *texts: str) -> ReferenceModel:
    return replace(reference, notices=(*reference.notices, *texts))


def _answers(reference: ReferenceModel, feeds: Inputs) -> list[Array] | None:
    try:
        return reference.interpreter.load(reference.proto, optimised=False).run(feeds)
    except InterpreterError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    """One output of the given network, and the same output under disturbed constants and inputs."""

    name: str
    value: Array
    disturbed: Sequence[Array]


class _GivenAnswers:
    """The given network's answers; raises ``InterpreterError`` where it does not run."""

    def __init__(self, model: onnx.ModelProto, feeds: Inputs, interpreter: Interpreter) -> None:
        self.model = model
        self._feeds = feeds
        self._interpreter = interpreter
        graph = interpreter.load(model, optimised=False)
        self._names = graph.output_names
        self._values = graph.run(feeds)
        again = graph.run(feeds)
        self._steady = [
            _is_array(one) and _is_array(two) and _same(one, two) for one, two in zip(self._values, again, strict=True)
        ]
        self._kind = int(TensorProto.FLOAT)
        self._outputs: list[_Output] | None = None

    def notices(self, source: str) -> list[str]:
        """What could not be compared, in words."""
        drawn = [name for name, steady in zip(self._names, self._steady, strict=True) if not steady]
        if not drawn:
            return []
        listed = ", ".join(f"'{name}'" for name in drawn)
        return [f"'{source}': output {listed} differs from run to run as given, so it was not compared"]

    def differences(self, reference: ReferenceModel) -> list[str]:
        """In which outputs the normalised network answers otherwise, in words; empty where it is equivalent."""
        try:
            found = self._interpreter.load(reference.proto, optimised=False).run(self._feeds)
        except InterpreterError as error:
            return [f"it no longer runs in {self._interpreter.name} ({_first_line(error)})"]
        pairs = [
            place
            for place, value in enumerate(found)
            if self._steady[place] and not _near(self._values[place], value, _STRICT_DB)
        ]
        if not pairs:
            return []
        outputs = self._disturbed()
        texts = [_difference(outputs[place], found[place], strict=self._kind == TensorProto.FLOAT) for place in pairs]
        return [text for text in texts if text]

    def _disturbed(self) -> list[_Output]:
        if self._outputs is None:
            self._kind = _coarsest(self.model)
            runs = []
            for seed in range(_DISTURBED_RUNS):
                generator = np.random.default_rng(seed)
                size, count = _ROUNDINGS[self._kind]
                weights = WeightFile() if has_detached(self.model) else None
                changed = _disturb_model(self.model, size * count, generator, weights)
                feeds = {name: _disturb(array, size * count, generator) for name, array in self._feeds.items()}
                try:
                    runs.append(self._interpreter.load(changed, optimised=False).run(feeds))
                except InterpreterError:
                    continue  # a constant may have to be exact
            self._outputs = [
                _Output(name=name, value=self._values[place], disturbed=[run[place] for run in runs])
                for place, name in enumerate(self._names)
            ]
        return self._outputs


def _coarsest(model: onnx.ModelProto) -> int:
    """The coarsest floating type that an activation of the network has."""
    try:
        view = GraphView(infer_shapes(model).graph)
    except (onnx.shape_inference.InferenceError, RuntimeError):
        view = GraphView(model.graph)
    constant = set(view.initializers) - set(view.inputs)
    found = {view.element_type(name) for name in view.inputs}
    for node in view.nodes:
        if all(name in constant for name in node.input):
            constant.update(node.output)
        else:
            found.update(view.element_type(name) for name in node.output)
    return next((kind for kind in (TensorProto.BFLOAT16, TensorProto.FLOAT16) if kind in found), TensorProto.FLOAT)


def _disturb_model(
    model: onnx.ModelProto, size: float, generator: np.random.Generator, weights: WeightFile | None
) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for graph in graphs_of(changed.graph):
        tensors = [*graph.initializer, *(e.t for node in graph.node for e in node.attribute if e.HasField("t"))]
        for tensor in tensors:
            if tensor.data_type in _FLOATS:
                value = _disturb(tensor_array(tensor), size, generator)
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
                if weights is not None and graph.name == changed.graph.name:
                    detach_one(tensor, weights)
    return changed


def _disturb(array: Array, size: float, generator: np.random.Generator) -> Array:
    if not _is_float(array):
        return array
    factors = 1 + size * generator.uniform(-1, 1, array.shape)
    with np.errstate(over="ignore"):
        changed: Array = np.asarray(array.astype(np.float64) * factors).astype(array.dtype)
    # A mask of the type's least number stays finite.
    return np.where(np.isinf(_wide(changed)), array, changed)


def _difference(output: _Output, found: Array, *, strict: bool) -> str:
    """How an output differs beyond rounding, in words; empty where it does not."""
    if not _is_array(found) or output.value.shape != found.shape:
        moving = any(run.shape != output.value.shape for run in output.disturbed)
        got = found.shape if _is_array(found) else type(found).__name__
        return "" if moving else f"output '{output.name}' has shape {got}, given {output.value.shape}"
    if output.value.dtype != found.dtype:
        return f"output '{output.name}' is {found.dtype}, given {output.value.dtype}"
    alike = [run for run in output.disturbed if run.shape == output.value.shape]
    if not _is_float(output.value):
        steady = np.ones(output.value.shape, bool)
        for run in alike:
            steady &= run == output.value
        wrong = int((steady & (found != output.value)).sum())
        return f"output '{output.name}' differs in {wrong} of {found.size} elements" if wrong else ""
    near = sqnr_db(output.value, found)
    own = min((sqnr_db(output.value, run) for run in alike), default=_LARGEST_DB)
    if own < _CHAOTIC_DB:
        return ""
    least = min(_STRICT_DB, own - _MARGIN_DB) if strict else own - _MARGIN_DB
    if near >= least:
        return ""
    largest = float(np.nanmax(np.abs(_wide(output.value) - _wide(found)), initial=0.0))
    return (
        f"output '{output.name}' differs by {largest:.3g} at most, an SQNR of {near:.1f} dB where rounding explains "
        f"{least:.0f} dB"
    )


def sqnr_db(wanted: Array, found: Array) -> float:
    """Signal to noise of ``found`` in dB, infinite and undefined elements left out where both have the same ones.

    −300 where one has such an element and the other has not, 300 where they are equal.
    """
    one, other = _wide(wanted), _wide(found)
    odd = ~np.isfinite(one) | ~np.isfinite(other)
    if not np.array_equal(one[odd], other[odd], equal_nan=True):
        return -_LARGEST_DB
    one, other = one[~odd], other[~odd]
    noise, signal = float(((one - other) ** 2).sum()), float((one**2).sum())
    if noise == 0:
        return _LARGEST_DB
    return float(np.clip(10 * np.log10(max(signal, 1e-300) / noise), -_LARGEST_DB, _LARGEST_DB))


def _near(wanted: Array, found: Array, least_db: float) -> bool:
    if not _is_array(found) or wanted.shape != found.shape or wanted.dtype != found.dtype:
        return False
    return sqnr_db(wanted, found) >= least_db if _is_float(wanted) else bool(np.array_equal(wanted, found))


def _same(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    return bool(np.array_equal(_wide(one), _wide(other), equal_nan=True) if _is_float(one) else (one == other).all())


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray)


def _is_float(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating)) or array.dtype.name == "bfloat16"


def _wide(array: Array) -> NDArray[np.float64]:
    wide: NDArray[np.float64] = array.astype(np.float64)
    return wide


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
