"""Dialect of a runtime: how it wants schemes written in ONNX, as a table of schemes and a writer.

For each scheme a dialect says, in one ``SchemeSupport``: which layers may take it or why they may not, what it computes
in, how many bytes it takes in the file, and how a layer of it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import onnx

from bitfront.core import LoweringError, Scheme
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import RECURRENT, TABLE_READERS, WEIGHTED, Layer
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.storage import stored_bytes

LAYERS = frozenset(WEIGHTED)
TABLES = frozenset(TABLE_READERS)
RECURRENTS = frozenset(RECURRENT)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoweringRequest:
    """A network with a scheme for each layer.

    Attributes:
        reference: Normalised FP32 network; never modified.
        layers: All its layers.
        schemes: Layer name → scheme.
        ranges: Tensor name → (low, high) of its values on the calibration inputs.
        weights: Layer name → rounded weight, for every layer with an integer precision.
    """

    reference: onnx.ModelProto
    layers: tuple[Layer, ...]
    schemes: Mapping[str, Scheme]
    ranges: Mapping[str, tuple[float, float]]
    weights: Mapping[str, RoundedWeight]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerSite:
    """A layer where it stands.

    Attributes:
        layer: The layer; its schemes are not filled in while a dialect is asked for them.
        node: Its node.
        view: The graph around it.
        index: The node's index in ``view.nodes``.
    """

    layer: Layer
    node: onnx.NodeProto
    view: GraphView
    index: int


def _for_every_layer(site: LayerSite) -> str:  # noqa: ARG001 (the signature of ``SchemeSupport.why_not``)
    return ""


E = TypeVar("E")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SchemeSupport(Generic[E]):
    """Entry of a dialect's table: how it supports one scheme. ``E`` is what it builds a graph with.

    Attributes:
        scheme: The scheme.
        compute_type: What a layer of it computes in.
        write: Adds a layer of it to the graph that is being built.
        why_not: Why a layer may not take it; empty where it may.
        operators: The kinds of layers that it is a question for; others neither may take it nor are told why not.
        weight_bytes: Bytes that a layer's weights, scales and zero points take in the file.
    """

    scheme: Scheme
    compute_type: ComputeType
    write: Callable[[E, LayerSite], None]
    why_not: Callable[[LayerSite], str] = _for_every_layer
    operators: frozenset[str] = LAYERS
    weight_bytes: Callable[[Layer, Scheme], int] = stored_bytes


class Dialect(Protocol):
    """Quantisation spec of a runtime: the schemes it takes, and how they are written."""

    @property
    def name(self) -> str:
        """Name that configs keep; the same for every backend that reads this dialect."""
        ...

    @property
    def schemes(self) -> Sequence[SchemeSupport[Any]]:
        """Every scheme that it writes or gives a reason not to, in the order of offers, ``fp32`` first."""
        ...

    def write(self, request: LoweringRequest) -> onnx.ModelProto:
        """Write the reference with every layer as its scheme says.

        Raises:
            LoweringError: If a tensor that must be quantised has no range, or values do not fit their type.
        """
        ...


@runtime_checkable
class HasSessionSettings(Protocol):
    """A dialect whose models must be run with settings of the runtime's session."""

    def session_settings(self, request: LoweringRequest) -> Mapping[str, str]:
        """Key → value by the runtime's own names, for the model that ``write`` makes of the request."""
        ...


def never(scheme: Scheme, reason: str) -> SchemeSupport[Any]:
    """The support of a scheme that a dialect refuses for every layer: a config carried over is told why."""

    def write(_: Any, site: LayerSite) -> None:
        raise LoweringError(f"layer '{site.layer.name}' cannot be {scheme.text}: {reason}", "leave it at fp32")

    return SchemeSupport(scheme=scheme, compute_type=ComputeType.FP32, write=write, why_not=lambda _: reason)


def offers(dialect: Dialect, site: LayerSite) -> tuple[tuple[Scheme, ...], dict[str, str]]:
    """Schemes that a layer may take, ``fp32`` first, and scheme text → reason for those that it may not."""
    schemes: list[Scheme] = []
    refused: dict[str, str] = {}
    for support in dialect.schemes:
        if site.layer.op not in support.operators:
            continue
        if reason := support.why_not(site):
            refused[support.scheme.text] = reason
        else:
            schemes.append(support.scheme)
    return tuple(schemes), refused


def support_of(dialect: Dialect, scheme: Scheme) -> SchemeSupport[Any]:
    """Entry of a scheme in a dialect's table.

    Raises:
        LoweringError: If it does not know it.
    """
    for support in dialect.schemes:
        if support.scheme == scheme:
            return support
    raise LoweringError(
        f"dialect '{dialect.name}' has no scheme {scheme.text}",
        f"use one of {', '.join(support.scheme.text for support in dialect.schemes)}",
    )


def stores(dialect: Dialect, op: str) -> bool:
    """Whether a dialect can store weights of an operator (tables, recurrent weights) in other types than FP32."""
    return any(op in support.operators for support in dialect.schemes)
