"""Backends by name."""

from __future__ import annotations

import pytest

from bitfront.backends import backend_names, get_backend
from bitfront.core import UsageError


@pytest.mark.parametrize("name", [*backend_names(), "fake"])
def test_a_backend_answers_to_its_name(name: str) -> None:
    """What is asked for is what comes."""
    assert get_backend(name).name == name


def test_the_default_is_first_and_fakes_are_not_offered() -> None:
    """The list is what a user may choose from."""
    assert backend_names()[0] == "ort-cpu"
    assert "fake" not in backend_names()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("ortcpu", "did you mean 'ort-cpu'?"), ("zzz", "name one of the known backends with --backend")],
)
def test_unknown_names_are_met_with_the_known(name: str, hint: str) -> None:
    """An unknown name lists what there is, and the closest one if any is close."""
    with pytest.raises(UsageError, match=f"unknown backend '{name}'; known: ort-cpu") as caught:
        get_backend(name)
    assert caught.value.hint == hint
