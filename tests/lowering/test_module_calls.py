"""Inputs by name become arguments of forward, and whatever it returns becomes tensors with names."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from bitfront.core import ModelError
from bitfront.lowering.module_calls import arguments, bound, call, has_names, in_order, named_tensors


def module_of(forward: Any) -> nn.Module:
    """A module with that forward."""
    made = nn.Module()
    made.forward = forward
    return made


def optional(ids: Any = None, mask: Any = None, types: Any = None, **extras: Any) -> Any: ...
def two(x: Any, mask: Any) -> Any: ...
def placed_only(a: Any, b: Any = 7, c: Any = 8, /, d: Any = 9) -> Any: ...
def keyed_only(x: Any, *, scale: Any, shift: Any = 0) -> Any: ...
def rest(x: Any, *others: Any) -> Any: ...
def anything(*args: Any, **kwargs: Any) -> Any: ...
def keywords(**kwargs: Any) -> Any: ...


@pytest.mark.parametrize(
    ("forward", "names", "expected"),
    [
        (optional, "ids mask", (("ids", "mask"), {})),
        (optional, "types ids", (("ids",), {"types": "types"})),
        (optional, "mask", ((), {"mask": "mask"})),
        (two, "mask x", (("x", "mask"), {})),
        (two, "images lengths", (("images", "lengths"), {})),
        (placed_only, "a c", (("a", 7, "c"), {})),
        (placed_only, "a d", (("a",), {"d": "d"})),
        (keyed_only, "scale x", (("x",), {"scale": "scale"})),
        (rest, "x y z", (("x", "y", "z"), {})),
        (rest, "a b c", (("a", "b", "c"), {})),
        (anything, "a b", (("a", "b"), {})),
        (keywords, "a b", ((), {"a": "a", "b": "b"})),
    ],
)
def test_arguments(forward: Any, names: str, expected: object) -> None:
    """By keyword where names are parameters, in order where none is; those left out keep their defaults."""
    assert arguments(module_of(forward), {name: name for name in names.split()}) == expected


@pytest.mark.parametrize(
    ("forward", "names", "message", "hint"),
    [
        (optional, "ids mask typs", "no parameter 'typs'; its parameters are 'ids', 'mask', 'types'", "'types' may be"),
        (optional, "tokens", "no parameter 'tokens'", "name the inputs"),
        (two, "x msk", "no parameter 'msk'; its parameters are 'x', 'mask'", "'mask' may be meant"),
        (two, "x", "needs 'mask'", "'x', 'mask'"),
        (two, "a b c", "no parameter 'a'", ""),
        (keyed_only, "x", "needs 'scale'", ""),
        (rest, "y", "", ""),
    ],
)
def test_names_that_are_no_parameters(forward: Any, names: str, message: str, hint: str) -> None:
    """They are refused with the parameters there are, unless forward takes whatever comes in order."""
    inputs = {name: name for name in names.split()}
    if not message:
        assert arguments(module_of(forward), inputs) == (("y",), {})
        return
    with pytest.raises(ModelError) as caught:
        arguments(module_of(forward), inputs)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_torchscript_takes_inputs_in_order() -> None:
    """It does not tell the names of its parameters."""

    class Less(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a - b

    with pytest.warns(DeprecationWarning, match="jit"):
        scripted = torch.jit.trace(Less(), (torch.ones(1), torch.ones(1)))  # type: ignore[no-untyped-call]
    assert call(scripted, {"x": torch.tensor(3.0), "y": torch.tensor(1.0)}) == 2


def test_in_order_fills_gaps() -> None:
    """With defaults, up to the last input."""
    assert in_order(module_of(optional), {"types": 1, "ids": 2}) == (2, None, 1)
    assert in_order(module_of(two), {"x": 1, "mask": 2}) == (1, 2)


def test_bound_is_by_parameter() -> None:
    """Variable ones are one entry, as the exporter wants its shapes."""
    assert bound(module_of(rest), (1, 2, 3), {}) == {"x": 1, "others": (2, 3)}


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass
class Answer:
    logits: Any
    loss: Any = None
    states: Any = ()


ONE = torch.zeros(1)


@pytest.mark.parametrize(
    ("outputs", "names", "named"),
    [
        (ONE, ["output"], False),
        ((ONE, None, [ONE]), ["output_0", "output_2.0"], False),
        ({"a": ONE, "b": {"c": ONE}}, ["a", "b.c"], True),
        (OrderedDict(z=ONE, a=None), ["z"], True),
        (Answer(ONE, None, (ONE, ONE)), ["logits", "states.0", "states.1"], True),
        (Pair(ONE, (ONE, 3)), ["left", "right.0"], True),
        ((ONE, Pair(ONE, ONE)), ["output_0", "output_1.left", "output_1.right"], True),
        ({"cache": object(), "logits": ONE}, ["logits"], True),
        (None, [], False),
    ],
)
def test_named_tensors(outputs: object, names: list[str], named: bool) -> None:
    """Whatever holds tensors is looked into; None, numbers and other objects are passed over."""
    assert list(named_tensors(outputs)) == names
    assert has_names(outputs) == named


def test_no_cache_is_kept() -> None:
    """Of any part's configuration, which asks for one again afterwards."""
    seen = []

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(use_cache=True)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(self.config.use_cache)
            return x

    inner = Inner()
    call(nn.Sequential(inner), {"x": ONE})
    assert seen == [False]
    assert inner.config.use_cache is True
