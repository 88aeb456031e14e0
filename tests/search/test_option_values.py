"""Whatever is typed behind an option: it works, or is refused by name before anything is loaded. Never a traceback."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitfront.backends.affinity import available_cores
from bitfront.search.arguments import values
from bitfront.search.arguments.values import MOST_THREADS_PER_CORE
from bitfront.search.commands import apply, backends, inspect, main_job, measure, report, sensitivity
from tests.search.command_line import enter, network, outcome, write_files

ODD = {
    "empty": "",
    "blank": "  ",
    "dash": "-",
    "dashes": "--",
    "minus one": "-1",
    "minus zero": "-0",
    "zero": "0",
    "beyond 32 bits": "5000000000",
    "beyond 64 bits": "100000000000000000000",
    "many threads": "100000",
    "five thousand digits": "9" * 5000,
    "Arabic digits": "٣",
    "underscore": "1_0",
    "beyond a float": "1e400",
    "below a float": "1e-400",
    "infinity": "inf",
    "minus infinity": "-inf",
    "NaN": "nan",
    "exponent and unit": "1e9h",
    "no seconds": "0s",
    "endless seconds": "9" * 400 + "h",
    "long name": "x" * 5000,
    "long path": "/" + "x/" * 3000,
    "NUL": "a\0b",
    "no UTF-8": "a\udcffb",
    "escape": "\x1b[31mred",
    "line feed": "a\nhint: b",
    "markup": "[red]x[/red]",
    "override": "\u202ex",
    "commas": ",,",
    "colon": ":",
    "no module": "no_such_module_:x",
    "relative module": ".:x",
    "equals": "=",
    "limit of nothing": "=1",
    "limit of nobody": "a=b,c",
    "format": "%s{}",
    "device": "/dev/null/x",
    "pattern of nothing": "0:0",
    "large pattern": "99999:999999",
}
MODULES = {
    "search": main_job,
    "sensitivity": sensitivity,
    "apply": apply,
    "measure": measure,
    "report": report,
    "inspect": inspect,
    "backends": backends,
}
PASSES = ("--passes", "--train-budget", "--sparsities", "--round-to", "--importance", "--sparse-weights")


class ReachedError(Exception):
    """The network would be loaded now: the options were taken."""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Command → words that make it work, in a folder with its files; loading a network raises ``ReachedError``."""
    enter(tmp_path, monkeypatch)
    files = write_files(tmp_path)

    def reached(*_: object, **__: object) -> None:
        raise ReachedError("loaded next")

    for loader in ("open_source", "load_network", "load_to_score"):
        monkeypatch.setattr(f"bitfront.search.inputs.loading.{loader}", reached)
    monkeypatch.setattr(measure, "read_model", reached)
    monkeypatch.setattr("bitfront.search.commands.apply.PrecisionConfig.load", reached)
    net, calib = ["--model", str(files.net)], ["--calib", str(files.calib)]
    return {
        "search": files.argv(),
        "sensitivity": ["sensitivity", *net, *calib],
        "apply": ["apply", "config.json", *net, "-o", "out.onnx"],
        "measure": ["measure", str(files.net)],
        "report": ["report", "run"],
        "inspect": ["inspect", str(files.net)],
        "backends": ["backends", "fake"],
    }


def given(parser: argparse.ArgumentParser, words: list[str], odd: str) -> Iterator[tuple[str, list[str]]]:
    """(option, command line) of every option that takes a value, and of every positional, with an odd value."""
    for action in parser._actions:
        if action.nargs == 0:
            continue
        if not action.option_strings:
            yield "", [words[0], odd, *words[2:]]
            continue
        option = action.option_strings[-1]
        rest = ["--workload", "a:b", "--passes", "prune,sparse"] if option in PASSES else words
        yield option, [*rest, f"{option}={odd}"]
        if not odd.startswith("-"):
            yield option, [*rest, option, odd]


@pytest.mark.parametrize("odd", ODD)
def test_every_option_takes_or_refuses_every_value(
    odd: str, base: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all commands: exit 2 with a short message that names the option and a hint, or the network is loaded next."""
    for command, module in MODULES.items():
        for option, argv in given(module.build_parser(), base[command], ODD[odd]):
            try:
                code = outcome(argv)
            except ReachedError:
                capsys.readouterr()
                continue
            said = capsys.readouterr().err
            place = f"{command} {option}: {said}"
            assert code == (0 if said == "" and command == "backends" else 2), place
            if code == 2:
                first, *rest = said.splitlines()
                assert first.startswith("error: "), place
                assert option in first or option == "--network", place
                assert any(line.startswith("hint: ") and line != "hint: b" for line in rest), place
                assert len(said) < 900, place
            assert not any(char < " " or char in "\x7f\u202e" for char in said.replace("\n", "")), place
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["calib.npz", "eval.npz", "net.onnx"]


SURE = {
    "--seed": ["-1", "4294967296", "5000000000", "100000000000000000000", "1.5", "٣"],
    "--threads": ["100000", "100000000000000000000", "0", "-3"],
    "--time-limit": ["0s", "1e9h", "9" * 400 + "h", "300000h", "-5", "inf"],
    "--trials": ["0", "9223372036854775808"],
    "--holdout": ["0", "1", "nan", "inf", "-0", "1e-400"],
    "--budget-ms": ["inf", "1e400", "-0", "1e-400", "ort-cpu=inf"],
    "--budget-mb": ["1e308", "-1"],
    "--max-drop": ["-1", "inf"],
    "--out": ["-", "x" * 300, "a\0b", "a\udcff"],
    "--calib": ["-", "x" * 300],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, found in SURE.items() for value in found])
def test_what_makes_no_sense_is_refused(
    option: str, value: str, base: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """These in particular are not taken."""
    assert outcome([*base["search"], f"{option}={value}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {option}: ")


@pytest.mark.parametrize(
    "words",
    [
        ["--seed", "4294967295"],
        ["--seed=+007"],
        ["--seed", "1", "--seed", "2"],
        ["--time-limit", "1.5h"],
        ["--max-drop=-0"],
        ["--trials", "9223372036854775807"],
        ["--out", "ein Ordner mit ü"],
    ],
)
def test_what_makes_sense_is_taken(words: list[str], base: dict[str, list[str]]) -> None:
    """Bounds themselves, repeated options (the last counts), and names that are not ASCII."""
    with pytest.raises(ReachedError, match="loaded next"):
        outcome([*base["search"], *words])


def test_sizes_are_told_as_they_were_typed(base: dict[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """In megabytes, not in the bytes that they become."""
    outcome([*base["search"], "--budget-mb=-2.5"])
    assert capsys.readouterr().err.startswith("error: --budget-mb: expected a positive number, got -2.5\n")


def test_threads_beyond_the_cores_are_told_of(
    base: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to a few for each core are taken with a warning, more are refused; the machine's cores are named."""
    monkeypatch.setattr("bitfront.backends.affinity.available_cores", lambda: 2)
    with pytest.raises(ReachedError, match="loaded next"):
        outcome([*base["search"], "--threads", "3"])
    assert "warning: --threads 3: this process may use 2 cores" in capsys.readouterr().err
    with pytest.raises(ReachedError, match="loaded next"):
        outcome([*base["search"], "--threads", "2"])
    assert capsys.readouterr().err == ""
    assert outcome([*base["search"], "--threads", str(2 * MOST_THREADS_PER_CORE + 1)]) == 2
    assert "expected at most 8 threads on the 2 cores" in capsys.readouterr().err
    assert available_cores() >= 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_permission_is_named(
    base: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path through it is refused with the reason."""
    shut = tmp_path / "shut"
    shut.mkdir(mode=0)
    assert outcome([*base["search"], "--calib", str(shut / "calib.npz")]) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_apply_refuses_its_output_first(
    base: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, or a place below a file, shows before the config is read."""
    (tmp_path / "folder").mkdir()
    for place in ("folder", "net.onnx/out.onnx"):
        assert outcome([*base["apply"][:-1], place]) == 2
        assert capsys.readouterr().err.startswith("error: --out: ")


def test_a_batch_beyond_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``measure`` makes no inputs that no memory holds."""
    enter(tmp_path, monkeypatch)
    Path("net.onnx").write_bytes(network().SerializeToString())
    assert outcome(["measure", "net.onnx", "--backend", "fake", "--batch-size", "1000000000"]) == 2
    assert capsys.readouterr().err.startswith("error: --batch-size: a batch of 1000000000 has inputs of ")


def test_version_is_told_beside_other_options(capsys: pytest.CaptureFixture[str]) -> None:
    """It starts no search, whatever stands beside it."""
    assert outcome(["--quiet", "--version"]) == 0
    assert capsys.readouterr().out.startswith("search (bitfront) ")


@pytest.mark.parametrize("width", [60, 80, 110])
@pytest.mark.parametrize("command", MODULES)
def test_help_fits_the_terminal(command: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider, and a command that goes on in another line says so as a shell reads it."""
    monkeypatch.setenv("COLUMNS", str(width))
    lines = MODULES[command].build_parser().format_help().splitlines()
    assert [line for line in lines if len(line) > width] == []
    for line, following in itertools.pairwise(lines):
        assert line.endswith(" \\") == following.startswith("      --")


def test_long_values_are_cut_in_messages() -> None:
    """What was typed is told by its beginning and its length."""
    with pytest.raises(argparse.ArgumentTypeError, match=r"got 'x{80}… \(5,000 characters\)'"):
        values.whole("x" * 5000)
