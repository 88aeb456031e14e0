"""Module paths of nodes that PyTorch's exporter wrote, and layers named by them.

The exporter notes in each node's metadata the modules that it was called in, the innermost last but for the operator:
``['', 'encoder', 'encoder.attention', 'linear_3']``. A layer whose weight bears its parameter's name no longer, as
after a transposition, is named by the innermost module; other layers keep their names.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx

from bitfront.lowering.layers import Layer

_SCOPES = "pkg.torch.onnx.name_scopes"
_LONGEST = 10_000


def module_paths(graph: onnx.GraphProto) -> dict[str, str]:
    """Node name → path of the innermost module that it was called in, for nodes that tell one."""
    found = {}
    for node in graph.node:
        for entry in node.metadata_props:
            if entry.key == _SCOPES and (path := _innermost(entry.value)):
                found[node.name] = path
    return found


def with_module_paths(proto: onnx.ModelProto, paths: Mapping[str, str]) -> onnx.ModelProto:
    """A copy whose nodes note their modules as the exporter does, so that a file keeps what layers are called by."""
    noted = without_module_paths(proto)
    for node in noted.graph.node:
        if node.name in paths:
            node.metadata_props.add(key=_SCOPES, value=repr(["", paths[node.name], node.op_type]))
    return noted


def without_module_paths(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes note no modules."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for node in bare.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != _SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return bare


def named_by_module(layers: Sequence[Layer], paths: Mapping[str, str]) -> list[Layer]:
    """Layers, those that bear their nodes' names under their modules' instead, different from all others.

    Args:
        layers: In the network's order.
        paths: ``module_paths`` of it.
    """
    taken = {layer.name for layer in layers}
    named = []
    for layer in layers:
        path = paths.get(layer.node, "") if layer.name == layer.node else ""
        name, suffix = path, 2
        while name in taken:
            name, suffix = f"{path}#{suffix}", suffix + 1
        taken.add(name or layer.name)
        named.append(replace(layer, name=name) if name else layer)
    return named


def _innermost(text: str) -> str:
    """Path of the innermost module of a list as the exporter writes it; empty where it is none."""
    try:
        scopes = ast.literal_eval(text) if len(text) <= _LONGEST else None
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        return ""
    return next((scope for scope in reversed(scopes[:-1]) if scope), "")
