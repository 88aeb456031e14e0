"""``search backends``: every runtime has a row; one that cannot start says why and what to do."""

from __future__ import annotations

import pytest

from bitfront.backends import FakeBackend, OrtCpuBackend, backend_names
from bitfront.backends.base import Capabilities, DeviceFingerprint
from bitfront.core import BackendUnavailableError, Precision
from bitfront.search.commands.backends import COLUMNS, look_at, remarks, row
from tests.search.command_line import outcome


class Absent(FakeBackend):
    """A runtime whose library is missing."""

    def fingerprint(self) -> DeviceFingerprint:
        raise BackendUnavailableError("libfast.so.1 cannot be loaded", "pip install fast")


class Choosy(FakeBackend):
    """A runtime that gains nothing by 8 bits."""

    def capabilities(self) -> Capabilities:
        return Capabilities(
            supported={"int8-conv": False, "fp16-conv": True}, notes={"int8-conv": "runs as Conv", "driver": "old"}
        )

    def unprofitable_precisions(self) -> dict[Precision, str]:
        return {Precision.INT8: "1.2 × FP16 here"}


def test_every_runtime_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    """Each name that --backend takes is listed once, with a reason where it cannot start; the exit status is 0."""
    assert outcome(["backends"]) == 0
    out = capsys.readouterr().out
    rows = [line.split()[0] for line in out.splitlines() if line and not line.startswith((" ", "backend "))]
    assert [name for name in rows if not name.endswith(":")] == list(backend_names())
    for line in out.splitlines():
        if "not available" in line and not line.startswith(" "):
            assert f"\n{line.split()[0]}:\n" in out


def test_one_name_lists_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Names limit the list."""
    assert outcome(["backends", "ort-cpu"]) == 0
    out = capsys.readouterr().out
    assert len([line for line in out.splitlines() if line.startswith("ort-cpu ")]) == 1
    assert "onnxruntime" in out


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown name is a usage error, with the nearest known one."""
    assert outcome(["backends", "ortcpu"]) == 2
    err = capsys.readouterr().err
    assert "unknown backend 'ortcpu'" in err
    assert "did you mean 'ort-cpu'?" in err


def test_a_runtime_that_cannot_start_says_why() -> None:
    """The reason and the remedy are shown; nothing else is claimed of it."""
    found = look_at("absent", Absent())
    assert row(found) == ("absent", "not available", "", "")
    assert remarks(found) == ["not available: libfast.so.1 cannot be loaded", "pip install fast"]


def test_what_a_runtime_does_not_do_is_said() -> None:
    """Failed probes come with their note, other notes and unprofitable precisions follow."""
    found = look_at("choosy", Choosy())
    assert row(found)[3] == "fp16-conv"
    assert remarks(found) == [
        "int8-conv: runs as Conv",
        "driver: old",
        "int8 is not offered: 1.2 × FP16 here",
    ]


def test_a_runtime_that_works_is_described() -> None:
    """Its version, its device and what it does."""
    found = look_at("ort-cpu", OrtCpuBackend())
    cells = dict(zip(COLUMNS, row(found), strict=True))
    assert cells["runtime"].startswith("onnxruntime ")
    assert "int8-conv" in cells["does here"].split()
