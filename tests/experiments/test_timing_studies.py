"""The A/A test of the timing and the latency model's benchmark, on simulated figures; nothing is timed for real."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bitfront.experiments import timing_study
from bitfront.experiments.latency_model_study import row
from bitfront.experiments.timing_study import cells, share_apart
from bitfront.search.proposals.mutations import draw
from tests.backends import models
from tests.search.measuring.test_confirmation import around
from tests.search.proposals.spaces import chain
from tests.search.proposals.test_latency_model import _truth


def test_copies_differ_where_an_interval_leaves_out_one() -> None:
    """One of four tries; the row tells it with the spread of all."""
    tries = [around(1.0), around(1.005), around(0.992), around(1.2)]
    assert share_apart(tries) == 0.25
    assert cells(tries)[:2] == ("4", "25.0%")


def test_a_file_is_told_from_itself_as_rarely_as_said(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the simulated runtime two copies never differ; a file that is none is refused with a hint."""
    path = tmp_path_factory.mktemp("aa") / "net.onnx"
    path.write_bytes(models.convolution(2))
    assert onnx.load(str(path)).graph.node
    assert timing_study.main(["--model", str(path), "--backend", "fake", "--tries", "3"]) == 0
    assert "0.0%" in capsys.readouterr().out
    assert timing_study.main(["--model", str(path.with_name("none.onnx")), "--backend", "fake"]) == 2
    assert timing_study.main(["--model", str(path), "--backend", "fake", "--tries", "0"]) == 2


def test_the_model_is_tried_on_what_it_has_not_seen() -> None:
    """Fitted to 60 of a linear truth it errs by less than a per cent on the rest; fitted to four, by more."""
    space, rng = chain(6), np.random.default_rng(0)
    truth = _truth(space)
    timed = [(encoding, around(truth.predict_encoding(encoding))) for encoding in (draw(space, rng) for _ in range(90))]
    many, few = row(space, timed, 60), row(space, timed, 4)
    assert many[:2] == ("60", "30")
    assert float(many[2].rstrip("%")) < 1 < float(few[2].rstrip("%"))
    assert float(many[4]) > 0.95
