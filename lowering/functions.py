"""A model's own functions (``ModelProto.functions``), written in place of the nodes that call them.

``onnx.inliner`` does it, functions that call functions included. Mended before:

- attributes that a call leaves to the function's defaults, which the inliner drops, are written at the call;
- a function is taken at the model's opsets: the checker grants that its operators are the same there;
- a function of the name of a standard operator is dropped, as runtimes call the operator.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx.inliner
from onnx import defs

from bitfront.lowering.graph import nodes_of


def without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions in place of their calls; the same object where it has none.

    Args:
        model: A checked model; not modified.
    """
    if not model.functions:
        return model
    called = onnx.ModelProto()
    called.CopyFrom(model)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    own = [function for function in model.functions if not _is_standard(function, versions)]
    del called.functions[:]
    called.functions.extend(own)
    imported = set(versions)
    for function in called.functions:
        for entry in function.opset_import:
            entry.version = versions.get(entry.domain, entry.version)
            if entry.domain not in imported:
                imported.add(entry.domain)
                called.opset_import.append(entry)
    defaults = {_key(function): list(function.attribute_proto) for function in called.functions}
    for node in nodes_of(called):
        given = {entry.name for entry in node.attribute}
        node.attribute.extend(entry for entry in defaults.get(_key(node), ()) if entry.name not in given)
    return onnx.inliner.inline_local_functions(called)


def _key(part: onnx.NodeProto | onnx.FunctionProto) -> tuple[str, str, str]:
    """Domain, name and overload, which tie a call to its function."""
    return part.domain, part.op_type if isinstance(part, onnx.NodeProto) else part.name, part.overload


def _is_standard(function: onnx.FunctionProto, versions: Mapping[str, int]) -> bool:
    return defs.has(function.name, versions.get(function.domain, 1), function.domain)
