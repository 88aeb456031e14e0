"""Times of a network's operators, each as a share of all, by the runtime's own profile of the network in FP32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bitfront.backends.base import Backend
from bitfront.backends.time_shares import TimeShares, time_shares
from bitfront.core import FP32, Inputs, UsageError
from bitfront.core.batching import median_batch
from bitfront.lowering.coverage import WeightHolder
from bitfront.lowering.graph import GraphView
from bitfront.lowering.lowerer import Lowerer

_FUSED = frozenset(("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Add"))


def operator_times(
    lowerer: Lowerer, backend: Backend, inputs: Inputs | None, holders: Sequence[WeightHolder], threads: int
) -> TimeShares | None:
    """Shares of the network's time in FP32; None where the runtime does not tell.

    Args:
        lowerer: Writes the network.
        backend: Runs it.
        inputs: Samples, of which one of median size is run, or one batch where that is fixed.
        holders: Operators to be told one by one; of several layers of a node the first has its time.
        threads: The backend's threads.

    Raises:
        UsageError: If there are no inputs.
        BackendError: If the network does not compile or run.
    """
    reference = lowerer.reference
    if not inputs:
        raise UsageError("--profile: there is nothing to run the network on", "give inputs with --calib")
    batch = reference.fixed_batch or 1
    feeds = reference.batching.feed(median_batch(inputs, batch))
    artifact = lowerer.lower({layer.name: FP32 for layer in lowerer.quantisable.layers})
    executed = backend.compile(artifact, threads=threads, batch_size=batch).profile(feeds)
    names = (*(name for holder in holders for name in (holder.name, holder.node)), *lowerer.quantisable.left_alone)
    shares = time_shares(executed, names, _results(GraphView(reference.proto.graph), holders))
    if shares is None:
        return None
    named = dict(shares.named)
    for holder in holders:
        if holder.node != holder.name:
            named[holder.name] += named.pop(holder.node, 0.0)
    return replace(shares, named=named)


def _results(view: GraphView, holders: Sequence[WeightHolder]) -> dict[str, str]:
    """Tensor → the operator that it is a result of, those behind activations and sums that a runtime fuses included."""
    nodes, found = {holder.node for holder in holders}, dict[str, str]()
    for index, node in enumerate(view.nodes):
        if node.name not in nodes:
            continue
        tensor = node.output[0]
        found[tensor] = node.name
        while len(readers := view.consumers(tensor)) == 1 and readers[0] > index:
            reader = view.nodes[readers[0]]
            if reader.op_type not in _FUSED:
                break
            # Of a sum's two operators the later one is fused with it.
            tensor = reader.output[0]
            found[tensor] = node.name
    return found
