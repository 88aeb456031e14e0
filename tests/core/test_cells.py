"""CSV files that a spreadsheet takes for text and numbers, never for formulas, and that read back as they were."""

from __future__ import annotations

import csv
import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.core.cells import csv_text, frame_text, guard, unguard

FORMULAS = ["=1+1", "+1", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''", "-"]
STARTS = tuple("=+-@\t\r\n＝＋－＠")


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_become_text(text: str) -> None:
    """A cell that a spreadsheet would compute begins with an apostrophe, and reads back as it was."""
    assert guard(text) == f"'{text}"
    assert unguard(guard(text)) == text


@pytest.mark.parametrize("text", ["", "conv1", "'conv1", "'", "a=b", "é", " =1"])
def test_other_text_stays(text: str) -> None:
    """What no spreadsheet computes is not touched, an apostrophe that was there included."""
    assert guard(text) == text
    assert unguard(text) == text


@given(st.text(alphabet=st.sampled_from("'=+-@\t\n,\"ab1"), max_size=6))
def test_every_text_reads_back(text: str) -> None:
    """Guarding loses nothing, and what is guarded begins harmlessly."""
    assert unguard(guard(text)) == text
    assert not guard(text).startswith(STARTS)


def test_tables_guard_texts_and_leave_numbers() -> None:
    """Headings and texts are guarded; negative numbers, gaps and truth values are written as they are."""
    text = csv_text(("=name", "loss"), [("=a,b", -0.5), ("-c", None)])
    assert list(csv.reader(io.StringIO(text))) == [["'=name", "loss"], ["'=a,b", "-0.5"], ["'-c", ""]]


def test_frames_guard_texts_and_leave_numbers() -> None:
    """The same of a frame, in pandas' own formats: whole numbers with gaps stay whole."""
    frame = pd.DataFrame(
        {
            "@backend": ["=1", None],
            "loss": [-0.5, float("-inf")],
            "mixed": [-1.5, "-x"],
            "count": pd.array([-3, None], dtype="Int64"),
            "met": [True, False],
        }
    )
    assert frame_text(frame) == "'@backend,loss,mixed,count,met\n'=1,-0.5,-1.5,-3,True\n,-inf,'-x,,False\n"
    assert "@backend" in frame  # the caller's frame is its own
    assert frame["@backend"][0] == "=1"
