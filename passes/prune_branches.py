"""Residual branches that can be removed whole, so that a network becomes shallower.

Where ``forward`` adds two tensors of one shape, an operand is a branch if layers with weights are computed for it
alone, and at least as many multiply-adds as are for the other one alone. To remove it is to put the other operand in
the sum's place (Veit et al., arXiv:1605.06431, section 4.1, delete residual modules in this way). Sums are found in
the graph that ``torch.fx`` traces; what is left is a ``GraphModule`` with the module paths it had.

Equivalence check, on the network itself: the graph computes what the module does, the network without the branch what
the graph does with the branch's output masked (multiplied by zero), and gradients still reach the weights.

Not handled: a ``forward`` that fx cannot trace (branches on values, loops over a tensor), sums with a factor
(``alpha``). What ``forward`` does in evaluation mode is what the graph does in training too, batch norm and dropout
modules excepted, and arithmetic in place is done on copies.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from bitfront.core import ModelError
from bitfront.lowering.module_calls import call, in_order
from bitfront.passes.device import modes_kept
from bitfront.passes.equivalence import difference, outputs_of, tensors_in
from bitfront.passes.prune_graph import LAYERS

_IN_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
_FAILURES = (RuntimeError, TypeError, ValueError, KeyError, AttributeError, AssertionError, IndexError, NameError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """Operand of a sum, which may be removed.

    Attributes:
        name: Longest module path that its layers share, with ``.branch`` behind where that is a layer or taken.
        layers: Paths of the layers with weights that go with it.
        weights: Of these layers.
        macs: Multiply-adds per sample that go with it.
        total: The sum's node in the traced graph.
        stays: Operand that takes the sum's place, 0 or 1.
        reason: Why it cannot be removed; empty if it can.
    """

    name: str
    layers: tuple[str, ...] = ()
    weights: int = 0
    macs: int = 0
    total: str = ""
    stays: int = 0
    reason: str = ""


def find_branches(module: nn.Module, examples: Mapping[str, Tensor]) -> tuple[Branch, ...]:
    """Every residual branch in the order of computation, not yet checked.

    Args:
        module: The trained network; left as it is.
        examples: Input name → tensor.

    Raises:
        ModelError: If fx cannot trace the module, or traces something else than it computes.
    """
    traced = copy.deepcopy(module).eval()
    graph = _trace(traced)
    run = _Measured(traced, graph, len(next(iter(examples.values()))))
    whole = outputs_of(module, examples)
    try:
        with torch.no_grad():
            same = tensors_in(run.run(*in_order(module, examples)))
    except _FAILURES as error:
        raise _untraced(error) from error
    if len(same) != len(whole) or difference("nothing", same, whole, whole):
        raise ModelError("the network computes something else than its trace", "leave residual branches out")
    taken = {name for name, part in traced.named_modules() if isinstance(part, LAYERS)}
    found = []
    for node in graph.nodes:
        branch = _branch(traced, run, node, taken)
        if branch is not None:
            taken.add(branch.name)
            found.append(branch)
    return tuple(found)


def checked(module: nn.Module, branches: Iterable[Branch], examples: Mapping[str, Tensor]) -> tuple[Branch, ...]:
    """The branches of ``find_branches`` after the equivalence check: those that fail have the reason.

    Args:
        module: As there.
        branches: As found.
        examples: As there.
    """
    traced = copy.deepcopy(module).eval().requires_grad_(True)
    graph = _trace(traced)
    whole = outputs_of(module, examples)
    return tuple(replace(branch, reason=_differs(traced, graph, branch, examples, whole)) for branch in branches)


def remove_branches(module: nn.Module, branches: Iterable[Branch]) -> nn.Module:
    """The module without these branches, made of its own parts, which are changed in place.

    Args:
        module: The network that they were found in, channels removed from it or not.
        branches: Of ``find_branches``.

    Raises:
        ModelError: If fx cannot trace the module.
    """
    with modes_kept(module):
        graph = _trace(module.eval())
    shallower = without(module, graph, tuple(branches))
    for name, part in shallower.named_modules():
        part.training = module.get_submodule(name).training
    return shallower


def without(module: nn.Module, graph: fx.Graph, branches: Sequence[Branch]) -> fx.GraphModule:
    """A module of the same parts that computes ``graph``, which is changed in place, without these branches."""
    nodes = {node.name: node for node in graph.nodes}
    for branch in branches:
        total = nodes[branch.total]
        total.replace_all_uses_with(_operands(total)[branch.stays])
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
    for node in list(graph.nodes):
        # The sum's ReLU now stands behind the one of the block before.
        if _is_relu(module, node) and _is_relu(module, node.all_input_nodes[0]):
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)
    graph.lint()
    return fx.GraphModule(module, graph)


class _Measured(fx.Interpreter):
    """Runs a graph and notes shapes and multiply-adds per sample by node."""

    def __init__(self, module: nn.Module, graph: fx.Graph, samples: int) -> None:
        super().__init__(module, graph=graph)
        self._samples = samples
        self.shapes: dict[str, torch.Size] = {}
        self.macs: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node as the base does, and note the size of what it gives."""
        with FlopCounterMode(display=False) as counter:
            result = super().run_node(n)
        self.macs[n.name] = counter.get_total_flops() // (2 * self._samples)
        if isinstance(result, Tensor):
            self.shapes[n.name] = result.shape
        return result


class _Masked(fx.Interpreter):
    """Runs a graph with one node's result multiplied by zero."""

    def __init__(self, module: nn.Module, graph: fx.Graph, masked: str) -> None:
        super().__init__(module, graph=graph)
        self._masked = masked

    def run_node(self, n: fx.Node) -> Any:
        """Run a node as the base does, with the branch's tensor set to zero."""
        result = super().run_node(n)
        return result * 0 if n.name == self._masked else result


def _trace(module: nn.Module) -> fx.Graph:
    """The graph of a module in evaluation mode; nothing in it, or in the module, works in place any more."""
    try:
        graph = fx.Tracer().trace(module)
    except (*_FAILURES, NotImplementedError) as error:
        raise _untraced(error) from error
    for part in module.modules():
        if getattr(part, "inplace", False) is True:
            part.inplace = False  # type: ignore[assignment]
    for node in graph.nodes:
        if node.op == "call_function":
            node.target = _IN_PLACE.get(node.target, node.target)
        if node.op == "call_method" and node.target.endswith("_") and hasattr(Tensor, node.target[:-1]):
            node.target = node.target[:-1]
        if node.kwargs.get("inplace") is True:
            node.kwargs = {**node.kwargs, "inplace": False}
    return graph


def _untraced(error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [""])[0]
    return ModelError(
        f"the module's forward cannot be traced by torch.fx ({type(error).__name__}: {reason})",
        "leave residual branches out",
    )


def _operands(node: fx.Node) -> list[fx.Node]:
    """The two operands of a sum; none for any other node."""
    if node.op == "call_function":
        adds = node.target in (operator.add, torch.add)
    else:
        adds = node.op == "call_method" and node.target == "add"
    operands = [operand for operand in node.args if isinstance(operand, fx.Node)]
    return operands if adds and len(operands) == len(node.args) == 2 and not node.kwargs else []


def _branch(module: nn.Module, run: _Measured, node: fx.Node, taken: set[str]) -> Branch | None:
    """The operand of a sum that can be removed; None if there is none."""
    operands = _operands(node)
    shapes = {run.shapes.get(operand.name) for operand in operands}
    if len(operands) != 2 or operands[0] is operands[1] or len(shapes) != 1 or None in shapes:
        return None
    slices = [_only_for(operand, node) for operand in operands]
    macs = [sum(run.macs[own.name] for own in nodes) for nodes in slices]
    candidates = [(side, _layers(module, slices[side])) for side in (0, 1) if macs[side] == max(macs)]
    removed, layers = next(((side, layers) for side, layers in candidates if layers), (0, ()))
    if not layers:
        return None
    return Branch(
        name=_name(layers, taken),
        layers=layers,
        weights=sum(module.get_parameter(f"{name}.weight").numel() for name in layers),
        macs=macs[removed],
        total=node.name,
        stays=1 - removed,
    )


def _only_for(operand: fx.Node, total: fx.Node) -> set[fx.Node]:
    """The nodes that nothing but this operand of the sum needs."""
    found: set[fx.Node] = set()
    for node in reversed(list(operand.graph.nodes)):
        if node.op == "placeholder" or (node is not operand and not node.users):
            continue
        if all(user in found or (node is operand and user is total) for user in node.users):
            found.add(node)
    return found


def _layers(module: nn.Module, nodes: set[fx.Node]) -> tuple[str, ...]:
    """Layers with weights all of whose uses are among these nodes, in the order of definition."""
    uses: dict[str, list[fx.Node]] = {}
    for node in next(iter(nodes)).graph.nodes if nodes else ():
        if node.op == "call_module":
            uses.setdefault(str(node.target), []).append(node)
    return tuple(
        name
        for name, part in module.named_modules()
        if isinstance(part, LAYERS) and name in uses and nodes.issuperset(uses[name])
    )


def _name(layers: tuple[str, ...], taken: set[str]) -> str:
    paths = [layer.split(".") for layer in layers]
    shared = 0
    while all(len(path) > shared and path[shared] == paths[0][shared] for path in paths):
        shared += 1
    name = ".".join(paths[0][:shared]) or layers[0]
    rank = 1
    found = name
    while found in taken:
        found = f"{name}.branch{'' if rank == 1 else rank}"
        rank += 1
    return found


def _is_relu(module: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))) is nn.ReLU
    if node.op == "call_function":
        return node.target in (torch.relu, nn.functional.relu)
    return node.op == "call_method" and node.target == "relu"


def _differs(
    module: nn.Module, graph: fx.Graph, branch: Branch, examples: Mapping[str, Tensor], whole: list[Tensor]
) -> str:
    """Reason why the network without the branch is not equivalent to the one in which it is masked; empty if it is."""
    masked = next(_operands(node)[1 - branch.stays] for node in graph.nodes if node.name == branch.total)
    try:
        with torch.no_grad():
            wanted = tensors_in(_Masked(module, graph, masked.name).run(*in_order(module, examples)))
        shallower = without(module, copy.deepcopy(graph), (branch,))
        outputs = tensors_in(call(shallower, examples))
        trained = list(shallower.parameters())
        torch.autograd.grad([output.sum() for output in outputs], trained, allow_unused=True)
    except _FAILURES as error:
        return f"the module does not run without it ({(str(error).strip().splitlines() or [''])[0]})"
    return difference("the branch", outputs, wanted, whole)
