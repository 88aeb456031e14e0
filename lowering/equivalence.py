"""Equivalence of a normalised network to the one given: steps of normalising that change its outputs are left out.

Both run in the interpreter, unoptimised, on a few inputs. Rounding alone may tell them apart: folding a batch norm
rounds weights anew, and a network given in FP16 is coarse itself. How much that may be is measured on the given
network: its constants and inputs are changed by a few roundings of the type it computes in, and

- a floating output may differ by about as much as that changes it (SQNR in dB), in FP32 by no more than
  ``STRICT_DB`` where it is well conditioned;
- behind a Sigmoid, Softmax or Tanh it may differ by a few units in the last place of 1, their own error however small
  the result is;
- other outputs may differ only where that changes them too: ties of ArgMax, TopK, comparisons.

Not compared: outputs that the given network itself draws anew in every run, and networks that the interpreter cannot
run as given; ``ReferenceModel.notices`` says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from bitfront.core import Array, Inputs, ModelError
from bitfront.core.batching import take_rows
from bitfront.core.formatting import first_line
from bitfront.core.ragged import rows_like
from bitfront.lowering.graph import FLOATS, MOVING, GraphView, constants_of
from bitfront.lowering.interpreter import Interpreter, InterpreterError
from bitfront.lowering.normalise import OPTIONAL_STEPS, QUANTISED_ARITHMETIC
from bitfront.lowering.output_difference import (
    STRICT_DB,
    Output,
    difference,
    disturbed_array,
    is_array,
    is_near,
    is_same,
)
from bitfront.lowering.quantiser_noise import with_quantiser_noise
from bitfront.lowering.reference import ReferenceModel, make_reference
from bitfront.lowering.shapes import infer_shapes
from bitfront.lowering.weight_files import WeightFile, detach_one, has_detached, tensor_array

_SAMPLES = 4
_DISTURBED_RUNS = 3
# Type → (relative size of one rounding, how many of them the given network is disturbed by).
_ROUNDINGS: Mapping[int, tuple[float, int]] = {
    TensorProto.FLOAT: (2.0**-24, 64),
    TensorProto.FLOAT16: (2.0**-11, 8),
    TensorProto.BFLOAT16: (2.0**-8, 4),
}
# Operators whose own error is absolute, a few units in the last place of 1 however small their result is.
_WITHIN_ONE = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "Tanh"})
# Operators whose results lie within the ends of their first input's values.
_WITHIN_INPUT = MOVING | {"Cast"}


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
    if QUANTISED_ARITHMETIC in reference.applied_steps:
        skipped = {*reference.skipped_steps, QUANTISED_ARITHMETIC}
        kept = _normalised(reference, skipped)
        return _in_floating_point(equivalent_to_given(kept, inputs), inputs)
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
        text = f"'{reference.source}' does not run in {name} as given ({first_line(error)})"
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


def _normalised(reference: ReferenceModel, skipped: Collection[str]) -> ReferenceModel:
    """The network normalised anew, without some steps; what is known of how it was read stays."""
    assert reference.given is not None
    made = make_reference(
        reference.given,
        reference.source,
        reference.interpreter,
        skipped=skipped,
        fixed_inputs=reference.fixed_inputs,
        weights=reference.weights,
    )
    return replace(made, given=reference.given, batching=reference.batching, notices=reference.notices)


def _in_floating_point(kept: ReferenceModel, inputs: Inputs | None) -> ReferenceModel:
    """A network that is quantised already in floating point, where that changes what it answers as its quantisers do.

    Args:
        kept: The network as it computes, on integers.
        inputs: As of ``equivalent_to_given``.
    """
    wide = _normalised(kept, set(kept.skipped_steps) - {QUANTISED_ARITHMETIC})
    feeds = random_inputs(kept) if inputs is None else first_batch(kept, inputs)
    wanted, found = (None, None) if feeds is None else (_answers(kept, feeds), _answers(wide, feeds))
    if feeds is None or wanted is None:
        return kept
    if found is None:
        differing = [f"it does not run in {kept.interpreter.name}"]
    else:
        runs = []
        for seed in range(_DISTURBED_RUNS):
            noisy = with_quantiser_noise(kept.proto, 1000 * seed)
            try:
                runs.append(kept.interpreter.load(noisy, optimised=False).run(feeds))
            except InterpreterError:
                continue
        outputs = [
            Output(name=name, value=wanted[place], disturbed=[run[place] for run in runs], last_place=0.0)
            for place, name in enumerate(kept.output_names)
        ]
        differing = [
            text
            for output, value in zip(outputs, found, strict=True)
            if not is_near(output.value, value, STRICT_DB)
            and (text := difference(output, value, strict=False, cause="its own quantisation"))
        ]
    text = f"'{kept.source}' is quantised already"
    if differing:
        stay = f"{text}, and its quantised layers stay as they are: in floating point {'; '.join(differing)}"
        return _noticed(kept, stay)
    searched = f"{text}: it is searched from its layers in floating point, which answer within what that changes"
    return _noticed(wide, searched)


def first_batch(reference: ReferenceModel, inputs: Inputs) -> Inputs | None:
    """A few samples as the network reads them, as many as it insists on; None where an input is missing or empty.

    Args:
        reference: The network.
        inputs: One array per network input, (n, …).
    """
    if any(name not in inputs or not len(inputs[name]) for name in reference.input_shapes):
        return None
    count = reference.fixed_batch or _SAMPLES
    rows = rows_like({name: inputs[name] for name in reference.input_shapes}, 0, count)
    return reference.batching.feed({name: take_rows(inputs[name], rows) for name in reference.input_shapes})


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
            made = _normalised(reference, steps)
        except ModelError as error:
            return None, [error.message]
        return made, given.differences(made)

    best, left = attempt(skipped)
    if best is None or left:
        return reference, left or found
    for step in OPTIONAL_STEPS:
        if step == QUANTISED_ARITHMETIC and step in reference.skipped_steps:
            continue  # judged by itself
        made, differing = attempt(skipped - {step})
        if made is not None and not differing:
            best, skipped = made, skipped - {step}
    names = ", ".join(f"'{step}'" for step in best.skipped_steps)
    text = f"'{reference.source}': left out of normalising: {names}; with it {'; '.join(found)}"
    return _noticed(best, text), []


def _noticed(reference: ReferenceModel, *texts: str) -> ReferenceModel:
    return replace(reference, notices=tuple(dict.fromkeys((*reference.notices, *texts))))


def _answers(reference: ReferenceModel, feeds: Inputs) -> list[Array] | None:
    try:
        return reference.interpreter.load(reference.proto, optimised=False).run(feeds)
    except InterpreterError:
        return None


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
            is_array(one) and is_array(two) and is_same(one, two) for one, two in zip(self._values, again, strict=True)
        ]
        self._kind = int(TensorProto.FLOAT)
        self._outputs: list[Output] | None = None

    def notices(self, source: str) -> list[str]:
        """Sentences on what could not be compared."""
        drawn = [name for name, steady in zip(self._names, self._steady, strict=True) if not steady]
        if not drawn:
            return []
        listed = ", ".join(f"'{name}'" for name in drawn)
        return [f"'{source}': output {listed} differs from run to run as given, so it was not compared"]

    def differences(self, reference: ReferenceModel) -> list[str]:
        """Sentences on outputs in which the normalised network answers otherwise; empty where it is equivalent."""
        try:
            found = self._interpreter.load(reference.proto, optimised=False).run(self._feeds)
        except InterpreterError as error:
            return [f"it no longer runs in {self._interpreter.name} ({first_line(error)})"]
        pairs = [
            place
            for place, value in enumerate(found)
            if self._steady[place] and not is_near(self._values[place], value, STRICT_DB)
        ]
        if not pairs:
            return []
        outputs = self._disturbed()
        texts = [difference(outputs[place], found[place], strict=self._kind == TensorProto.FLOAT) for place in pairs]
        return [text for text in texts if text]

    def _disturbed(self) -> list[Output]:
        if self._outputs is None:
            self._kind = _coarsest(self.model)
            runs = []
            for seed in range(_DISTURBED_RUNS):
                generator = np.random.default_rng(seed)
                size, count = _ROUNDINGS[self._kind]
                weights = WeightFile() if has_detached(self.model) else None
                changed = _disturb_model(self.model, size * count, generator, weights)
                feeds = {name: disturbed_array(array, size * count, generator) for name, array in self._feeds.items()}
                try:
                    runs.append(self._interpreter.load(changed, optimised=False).run(feeds))
                except InterpreterError:
                    continue  # a constant may have to be exact
            bounded = outputs_within_one(self.model.graph)
            last_place = 2 * _ROUNDINGS[self._kind][0]
            self._outputs = [
                Output(
                    name=name,
                    value=self._values[place],
                    disturbed=[run[place] for run in runs],
                    last_place=last_place if name in bounded else 0.0,
                )
                for place, name in enumerate(self._names)
            ]
        return self._outputs


def outputs_within_one(graph: onnx.GraphProto) -> set[str]:
    """Outputs whose values a Sigmoid, Softmax or Tanh keeps within −1 and 1, whatever moves them about behind it."""
    makers = {output: node for node in graph.node for output in node.output}
    found = set()
    for value in graph.output:
        node = makers.get(value.name)
        while node is not None and node.op_type in _WITHIN_INPUT:
            node = makers.get(node.input[0])
        if node is not None and node.op_type in _WITHIN_ONE:
            found.add(value.name)
    return found


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
    main = {tensor.name for tensor in changed.graph.initializer}
    for tensor in constants_of(changed):
        if tensor.data_type in FLOATS:
            value = disturbed_array(tensor_array(tensor), size, generator)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
            if weights is not None and tensor.name in main:
                detach_one(tensor, weights)
    return changed
