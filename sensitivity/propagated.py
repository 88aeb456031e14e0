"""Scores of schemes by the error they make in their own layer, carried to the outputs.

    local error   a group's part (``lowering.parts``) runs on what it reads in the FP32 network, as each scheme has it
                  written, on its backend; its squared difference from the FP32 results, summed, is the scheme's energy
    probes        the errors of a few schemes a group, the largest and one far below it, are added to the FP32
                  network's results in that place (``injection``), which gives their divergence; others follow from
                  their energy: divergence ∝ energy^b, with b between two probes, 1 without a second. Errors whose
                  mean a corrected bias takes away reach less far than others, and have a probe of their own
    leave one out the errors of all groups' lowest schemes are added at once, and all but one group's; the difference
                  is that group's lowest scheme's

The work is a run of each part for each scheme, and four runs of the network a group, whatever number of schemes there
is; nothing but parts is written and compiled. Of a network for which that is much, fewer samples are taken: so many
that all runs come to ``MOST_MACS`` multiplications, but ``FEWEST_SAMPLES`` at least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bitfront.backends.base import Backend
from bitfront.backends.batches import sample_count
from bitfront.core import (
    FP32,
    Array,
    Artifact,
    BackendError,
    BackendUnavailableError,
    ContentStore,
    Inputs,
    LoweringError,
    Scheme,
    digest,
)
from bitfront.core.batching import take_rows
from bitfront.lowering.interpreter import InterpreterError
from bitfront.lowering.layers import WEIGHTED
from bitfront.lowering.parts import NetworkPart
from bitfront.lowering.rounding.methods import uses_calibration
from bitfront.sensitivity.divergence import Outputs, divergence
from bitfront.sensitivity.group_scores import GroupScores, choose_probes
from bitfront.sensitivity.injection import InjectedNetwork, Tensors
from bitfront.sensitivity.precision_order import lowest
from bitfront.sensitivity.scheme_lowerer import PartLowerer
from bitfront.sensitivity.whole_network import Scores, mean_and_error

LIVE_BYTES = 1_000_000_000
MOST_MACS = 5e12  # a minute or two on two cores
FEWEST_SAMPLES = 8
_RUNS = 4  # of the network for each group
_KIND = "sensitivity"
_VERSION = 1

Errors = list[dict[str, Array]]  # result of a part → error, run by run


def propagated_scores(
    lowerer: PartLowerer,
    backend: Backend,
    inputs: Inputs,
    offered: Mapping[str, Sequence[Scheme]],
    *,
    divergence_metric: str,
    context: str,
    threads: int,
    store: ContentStore,
    on_step: Callable[[str], None],
) -> tuple[dict[str, GroupScores], int]:
    """Group → its scores, for every group that is a part of the network which runs on the backend alone.

    Args:
        lowerer: Writes the parts.
        backend: Runs them.
        inputs: Unlabelled inputs, (n, …) each.
        offered: Group → its schemes, FP32 first.
        divergence_metric: In which outputs are compared.
        context: Digest of all that scores depend on, the schemes aside.
        threads: Of the backend.
        store: Where scores are kept.
        on_step: Told of each scheme and each group left out.

    Returns:
        The scores, and on how many samples they were taken; none where the interpreter does not run the network.

    Raises:
        BackendError: If the backend is gone.
    """
    parts = {name: part for name, part in lowerer.parts.items() if len(offered[name]) > 1}
    if not parts:
        return {}, 0
    try:
        network = InjectedNetwork(lowerer.reference, parts.values())
        blocks = list(_blocks(network, parts.values(), inputs, lowerer.reference.fixed_batch or 1))
    except InterpreterError:
        return {}, 0  # the backend's own runtime may run what the interpreter does not
    run = _Propagation(
        lowerer=lowerer,
        backend=backend,
        network=network,
        parts=parts,
        divergence_metric=divergence_metric,
        threads=threads,
    )
    key = digest(context, "propagated", _VERSION, divergence_metric)
    found = {
        name: GroupScores(
            energies={FP32: 0.0},
            corrected=frozenset(s for s in offered[name] if _corrected_axis(part, s) is not None),
        )
        for name, part in parts.items()
    }
    for name in parts:
        for scheme in offered[name][1:]:
            try:
                run.artifact(name, scheme)
            except LoweringError as error:
                found[name].refused[scheme] = error.message
    for block in blocks:
        last = block is blocks[-1]
        for name in list(found):
            own = digest(key, dict(block.inputs), name, run.digests(name, found[name].refused))
            kept = store.get_arrays(_KIND, own)
            if kept is None:
                kept = run.measure(name, found[name], block)
                if kept is None:
                    del found[name]  # the part does not run alone
                    continue
                store.put_arrays(_KIND, own, kept)
            found[name].add(kept)
            for scheme in offered[name][1:] if last else ():
                on_step(f"{name} {scheme.text}")
        block.forget()
    _leave_one_out(run, blocks, found, key, store)
    for name in found:
        on_step(f"{name} restored")
    return found, sum(sample_count(block.inputs) for block in blocks)


class _Block:
    """Samples that are worked on together, and what parts read and write for them, read when first asked for."""

    def __init__(self, network: InjectedNetwork, inputs: Inputs) -> None:
        self.inputs = inputs
        self._network = network
        self._read: tuple[Outputs, Tensors] | None = None

    @property
    def reference(self) -> Outputs:
        """Answers of the network."""
        return self._known()[0]

    @property
    def tensors(self) -> Tensors:
        """Tensors that parts read and write, run by run."""
        return self._known()[1]

    def forget(self) -> None:
        """Free what was read."""
        self._read = None

    def _known(self) -> tuple[Outputs, Tensors]:
        if self._read is None:
            self._read = self._network.read(self.inputs)
        return self._read


def _blocks(network: InjectedNetwork, parts: Collection[NetworkPart], inputs: Inputs, batch: int) -> Iterator[_Block]:
    """Blocks of samples of which everything that parts read and write, and as much of errors, fits ``LIVE_BYTES``."""
    _, tensors = network.read(_rows(inputs, 0, batch))
    work = _RUNS * len(parts) * sum(_macs(part, run) for part in parts for run in tensors) / batch
    affordable = max(FEWEST_SAMPLES, int(MOST_MACS / max(work, 1.0)))
    count = min(sample_count(inputs), -(-affordable // batch) * batch)
    each = 2 * sum(array.nbytes for run in tensors for array in run.values()) / batch
    size = max(1, int(LIVE_BYTES / max(each, 1.0) / batch)) * batch
    for start in range(0, count, size):
        yield _Block(network, _rows(inputs, start, min(start + size, count)))


def _macs(part: NetworkPart, run: Mapping[str, Array]) -> int:
    """Multiplications of a part: those of its weights, at each position of its results."""
    layers = [layer for layer in part.layers if layer.op in WEIGHTED]
    positions = max(run[result].size for result in part.outputs)
    return sum(layer.parameters * max(1, positions // layer.weight_shape[layer.channel_axis]) for layer in layers)


def _rows(inputs: Inputs, start: int, stop: int) -> dict[str, Array]:
    rows = np.arange(start, stop)
    return {name: take_rows(array, rows) for name, array in inputs.items()}


@dataclass(slots=True, kw_only=True)
class _Propagation:
    """Runs parts and carries their errors to the outputs."""

    lowerer: PartLowerer
    backend: Backend
    network: InjectedNetwork
    parts: Mapping[str, NetworkPart]
    divergence_metric: str
    threads: int
    _digests: dict[tuple[str, Scheme], str] = field(default_factory=dict)

    def artifact(self, name: str, scheme: Scheme) -> Artifact:
        """The part's artifact; not kept, since together they are as large as the network several times over."""
        made = self.lowerer.lower_part(self.parts[name], scheme)
        self._digests[name, scheme] = made.digest
        return made

    def digests(self, name: str, refused: Mapping[Scheme, str]) -> dict[str, str]:
        """Scheme text → digest of its artifact, of those that are written."""
        return {
            scheme.text: found
            for (group, scheme), found in self._digests.items()
            if group == name and scheme not in refused
        }

    def measure(self, name: str, known: GroupScores, block: _Block) -> dict[str, Array] | None:
        """A group's energies and probes on a block, as ``GroupScores.add`` reads them; None if nothing of it runs."""
        schemes = [scheme for group, scheme in self._digests if group == name and scheme not in known.refused]
        by_digest: dict[str, tuple[float, Errors] | BackendError] = {}
        texts, energies, reasons = [], [], []
        errors: dict[Scheme, Errors] = {}
        for scheme in schemes:
            content = self._digests[name, scheme]
            if content not in by_digest:
                try:
                    made = self.errors(name, scheme, block)
                    by_digest[content] = _energy(made), made
                except BackendUnavailableError:
                    raise  # a runtime that is gone is no property of the scheme
                except BackendError as error:
                    by_digest[content] = error
            outcome = by_digest[content]
            texts.append(scheme.text)
            energies.append(math.nan if isinstance(outcome, BackendError) else outcome[0])
            reasons.append(outcome.message if isinstance(outcome, BackendError) else "")
            if not isinstance(outcome, BackendError):
                errors[scheme] = outcome[1]
        if schemes and not errors:
            return None
        usable = {scheme: energy for scheme, energy in zip(schemes, energies, strict=True) if scheme in errors}
        probes = [scheme for scheme in known.probes if scheme in errors] or choose_probes(usable, known.corrected)
        carried = {scheme.text: self.carried(errors[scheme], block) for scheme in probes}
        return {
            "schemes": np.array(texts),
            "energies": np.array(energies),
            "refused": np.array(reasons),
            "probes": np.array(list(carried)),
            "divergences": np.array(list(carried.values())).reshape(len(carried), -1),
        }

    def errors(self, name: str, scheme: Scheme, block: _Block) -> Errors:
        """Errors that a scheme makes in its part, run by run; without their mean where a corrected bias takes it.

        Raises:
            BackendError: If the backend refuses the part.
        """
        part = self.parts[name]
        compiled = self.backend.compile(self.artifact(name, scheme), threads=self.threads)
        made: Errors = []
        for tensors in block.tensors:
            found = compiled.run({tensor: tensors[tensor] for tensor in part.inputs})
            answers = dict(zip(compiled.output_names, found, strict=True))
            made.append({result: _difference(answers[result], tensors[result]) for result in part.outputs})
        axis = _corrected_axis(part, scheme)
        if axis is not None:
            for result in part.outputs:
                whole = [run[result] for run in made]
                mean = _channel_mean(whole, axis)
                for run in made:
                    run[result] = np.subtract(run[result], mean)
        return made

    def carried(self, errors: Errors, block: _Block) -> Scores:
        """Divergence of each sample of a block, (n,), with errors added to the FP32 network's results."""
        return divergence(self.divergence_metric, block.reference, self.network.answers(block.inputs, errors))


def _difference(answer: Array, wanted: Array) -> Array:
    """Error of an answer, 0 where both are the same infinity."""
    with np.errstate(invalid="ignore"):
        return np.where(answer == wanted, np.float32(0), np.subtract(answer, wanted))


def _corrected_axis(part: NetworkPart, scheme: Scheme) -> int | None:
    """Axis of the channels along which a corrected bias takes the mean error away; None without such a bias."""
    (op, *others) = {layer.op for layer in part.layers}
    if others or not uses_calibration(scheme.weights):
        return None
    return {"Conv": 1, "ConvTranspose": 1, "Gemm": -1}.get(op)


def _channel_mean(runs: Sequence[Array], axis: int) -> Array:
    total = sum(
        run.astype(np.float64).sum(axis=tuple(k for k in range(run.ndim) if k != axis % run.ndim), keepdims=True)
        for run in runs
    )
    count = sum(run.size // run.shape[axis] for run in runs)
    # Of few values a part of the mean is their own.
    mean: Array = np.asarray(total / max(count, 1) * (1 - 1 / max(count, 1)), np.float32)
    return mean


def _energy(errors: Errors) -> float:
    return float(sum(np.square(array, dtype=np.float64).sum() for run in errors for array in run.values()))


def _leave_one_out(
    run: _Propagation, blocks: Sequence[_Block], found: Mapping[str, GroupScores], key: str, store: ContentStore
) -> None:
    """Fill in leave-one-out scores, where all groups' lowest schemes at once still give numbers."""
    scores = {name: group.single_layer() for name, group in found.items()}
    low = {name: lowest(values) for name, values in scores.items()}
    low = {name: scheme for name, scheme in low.items() if scheme != FP32}
    own = digest(key, "leave one out", [dict(block.inputs) for block in blocks], {n: s.text for n, s in low.items()})
    own = digest(own, [run.digests(name, found[name].refused) for name in low])
    differences = store.get_arrays(_KIND, own)
    if differences is None:
        parts: dict[str, list[Scores]] = {name: [] for name in low}
        for block in blocks:
            errors = {name: run.errors(name, scheme, block) for name, scheme in low.items()}
            together = run.carried(_added(errors.values()), block)
            for name in low:
                others = _added(each for other, each in errors.items() if other != name)
                parts[name].append(together - run.carried(others, block))
            block.forget()
        differences = {name: np.concatenate(values) for name, values in parts.items()}
        store.put_arrays(_KIND, own, differences)
    for name, scheme in low.items():
        values = differences[name]
        found[name].leave_one_out[FP32] = (0.0, 0.0)
        if not np.isfinite(values).all():
            continue
        found[name].leave_one_out[scheme] = mean_and_error(values)


def _added(errors: Iterable[Errors]) -> Errors:
    """Errors of several groups at once: no two share a result."""
    return [{result: array for run in runs for result, array in run.items()} for runs in zip(*errors, strict=True)]
