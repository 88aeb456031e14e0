"""The command line: every option arrives, the help says what it must, and exit codes are as promised."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from bitfront.core import CalibrationSettings, Constraints, Precision, Prefer, Preference, RangeMethod
from bitfront.search import cli
from bitfront.search.arguments import arguments, values
from bitfront.search.commands import apply, inspect, main_job, measure, report, sensitivity
from bitfront.search.inputs.source import Source
from bitfront.search.options import RunOptions
from bitfront.search.passes.distill import DistillPass
from bitfront.search.passes.options import PassOptions
from bitfront.search.passes.prune import PrunePass
from bitfront.search.passes.qat import QatPass
from bitfront.search.passes.sparse import SparsePass, SparsePattern
from tests.search.command_line import outcome

PARSERS = {
    "search": main_job.build_parser,
    "search sensitivity": sensitivity.build_parser,
    "search apply": apply.build_parser,
    "search measure": measure.build_parser,
    "search report": report.build_parser,
    "search inspect": inspect.build_parser,
}
OUT = Path("there")

# Option → its words on the command line and what they become: a field of RunOptions, or of Source.
GIVEN: dict[str, tuple[list[str], dict[str, object]]] = {
    "--budget-ms": (["5"], {"budget": Constraints(latency_ms=5.0)}),
    "--budget-mb": (["0.4"], {"budget": Constraints(size_bytes=400_000.0)}),
    "--min-acc": (["0.75"], {"budget": Constraints(min_accuracy=0.75)}),
    "--max-drop": (["0.01"], {"budget": Constraints(max_drop=0.01)}),
    "--max-error": (["0.2"], {"budget": Constraints(max_error=0.2)}),
    "--max-rise": (["0.05"], {"budget": Constraints(max_rise=0.05)}),
    "--confidence": (["0.95"], {"budget": Constraints(confidence=0.95)}),
    "--prefer": (["size"], {"preference": Preference(prefer=Prefer.SIZE)}),
    "--significance": (["0.05"], {"preference": Preference(significance=0.05)}),
    "--model": (["net.onnx"], {"model": Path("net.onnx")}),
    "--calib": (["--model", "n", "--calib", "c.npz"], {"calibration": "c.npz"}),
    "--eval": (["--model", "n", "--eval", "e.npz"], {"evaluation": "e.npz"}),
    "--data-options": (
        ["--model", "n", "--data-options", "size=8", "eval:mean=0.5,0.4", "--data-options", "std=1"],
        {"data_options": (("size", "8"), ("eval:mean", "0.5,0.4"), ("std", "1"))},
    ),
    "--batch-axis": (
        ["--model", "n", "--batch-axis", "x=1", "sr=none"],
        {"batch_axes": (("x", 1), ("sr", None))},
    ),
    "--state": (["--model", "n", "--state", "out=in"], {"state": (("out", "in"),)}),
    "--metric": (["--model", "n", "--metric", "m:f"], {"metric": "m:f"}),
    "--workload": (["m:w"], {"workload": "m:w"}),
    "--task": (["--workload", "hf:net", "--task", "fill-mask"], {"task": "fill-mask"}),
    "--data": (["."], {"data": Path()}),
    "--precisions": (["int4,fp32"], {"precisions": (Precision.FP32, Precision.INT4)}),
    "--backend": (["other"], {"backend": "other"}),
    "--threads": (["2"], {"threads": 2}),
    "--batch-size": (["7"], {"batch_size": 7}),
    "--trials": (["12"], {"trials": 12}),
    "--time-limit": (["5m"], {"time_limit_s": 300.0}),
    "--seed": (["3"], {"seed": 3}),
    "--calibration": (["mse"], {"calibration": CalibrationSettings(method=RangeMethod.MSE)}),
    "--percentile": (
        ["--calibration", "percentile", "--percentile", "99"],
        {"calibration": CalibrationSettings(method=RangeMethod.PERCENTILE, percentile=99.0)},
    ),
    "--calib-samples": (["64"], {"calibration": CalibrationSettings(samples=64)}),
    "--sensitivity-samples": (["32"], {"sensitivity_samples": 32}),
    "--holdout": (["0.25"], {"holdout": 0.25}),
    "--storage": (["sqlite:///x.db"], {"storage": "sqlite:///x.db"}),
    "--out": (["there"], {"out": OUT}),
    "--resume": ([], {"resume": True}),
    "--save-engine": ([], {"save_engine": True}),
    "--passes": (["qat,distill"], {"passes": PassOptions(passes=(DistillPass(), QatPass()))}),
    "--train-budget": (
        ["--passes", "qat", "--train-budget", "2.5"],
        {"passes": PassOptions(passes=(QatPass(),), train_budget_s=150.0)},
    ),
    "--sparsities": (
        ["--passes", "prune", "--sparsities", "0.5,0.25"],
        {"passes": PassOptions(passes=(PrunePass(sparsities=(0.25, 0.5)),))},
    ),
    "--round-to": (
        ["--passes", "prune", "--round-to", "16"],
        {"passes": PassOptions(passes=(PrunePass(round_to=16),))},
    ),
    "--importance": (
        ["--passes", "prune", "--importance", "fisher"],
        {"passes": PassOptions(passes=(PrunePass(importance="fisher"),))},
    ),
    "--sparse-weights": (
        ["--passes", "sparse", "--sparse-weights", "2:4,0.8"],
        {"passes": PassOptions(passes=(SparsePass(sparse_weights=(SparsePattern("2:4"), SparsePattern("0.8"))),))},
    ),
}
ELSEWHERE = {"--help", "--version", "--quiet"}  # tested below by what they do


def parsed(words: list[str]) -> dict[str, object]:
    """Every field of RunOptions and Source that ``words`` lead to."""
    args = arguments.parse(main_job.build_parser(), words)
    options = main_job.options_of(args, args.out or Path("runs"), args.batch_size or 1)
    source = arguments.source_of(args)
    fields = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return fields | {field.name + "@": getattr(source, field.name) for field in dataclasses.fields(source)}


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Its long options."""
    return {action.option_strings[-1] for action in parser._actions if action.option_strings}


@pytest.mark.parametrize("option", GIVEN)
def test_every_option_arrives(option: str) -> None:
    """An option changes the field it is meant for, to its value, and no other field."""
    words, expected = GIVEN[option]
    given = words if option in words else [option, *words]
    base = given[: given.index(option)]
    before, after = parsed(base if len(base) > 1 and base[0] in ("--model", "--workload") else []), parsed(given)
    changed = {name for name in after if after[name] != before[name]}
    source_fields = {field.name for field in dataclasses.fields(Source)}
    names = {name + "@" if name in source_fields and option in SOURCES else name for name in expected}
    assert changed == names
    for name, value in expected.items():
        assert after[name + "@" if option in SOURCES else name] == value


SOURCES = {
    *("--model", "--calib", "--eval", "--data-options", "--batch-axis", "--state", "--metric", "--workload", "--task"),
    "--data",
}


def test_the_check_sees_a_dropped_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that is parsed and then forgotten makes the test above fail."""
    real = main_job.options_of

    def forgetful(args: argparse.Namespace, out: Path, batch_size: int) -> RunOptions:
        return dataclasses.replace(real(args, out, batch_size), seed=0)

    monkeypatch.setattr(main_job, "options_of", forgetful)
    with pytest.raises(AssertionError, match="seed"):
        test_every_option_arrives("--seed")


def test_no_option_is_accepted_and_ignored() -> None:
    """Every option of the main job is covered above: a new one without effect fails here."""
    assert options_of(main_job.build_parser()) == set(GIVEN) | ELSEWHERE


def test_every_field_has_an_option() -> None:
    """Every field of RunOptions but its policy, of Constraints, CalibrationSettings and Source has an option."""
    reached = {name for option, (_, expected) in GIVEN.items() if option not in SOURCES for name in expected}
    assert reached | {"policy"} == {field.name for field in dataclasses.fields(RunOptions)}
    budgets = [expected["budget"] for _, expected in GIVEN.values() if "budget" in expected]
    for field in dataclasses.fields(Constraints):
        assert any(getattr(budget, field.name) is not None for budget in budgets)
    settings = [expected["calibration"] for option, (_, expected) in GIVEN.items() if option == "--percentile"]
    assert settings != [CalibrationSettings()]
    sources = {name for option in SOURCES for name in GIVEN[option][1]}
    assert sources == {field.name for field in dataclasses.fields(Source)}


def test_defaults_are_those_of_run_options() -> None:
    """Without options the run is what ``RunOptions`` says, so that library and command line agree."""
    args = arguments.parse(main_job.build_parser(), [])
    assert main_job.options_of(args, OUT, 1) == RunOptions(budget=Constraints(), out=OUT)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("1.5m", 90.0), (".5h", 1800.0), ("2min", 120.0)]
)
def test_durations(text: str, seconds: float) -> None:
    """A time limit is in seconds unless it says otherwise."""
    assert values.duration_s(text) == seconds


@pytest.mark.parametrize("name", PARSERS)
def test_help_reads_well(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command explains itself within its width; each option has a help text, and says its default."""
    monkeypatch.setenv("COLUMNS", "100")
    words = name.split()[1:]
    assert outcome([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: {name}")
    assert all(len(line) <= 120 for line in shown.splitlines())
    for action in PARSERS[name]()._actions:
        assert action.help
        if action.option_strings and not {"--help", "--version"} & set(action.option_strings):
            # What has no default is what a person must name, or what is off unless named.
            assert "default" in action.help or action.dest in {
                "model",
                "calib",
                "eval",
                "data",
                "out",
                "resume",
                "workload",
            }


def test_help_of_the_main_job(capsys: pytest.CaptureFixture[str]) -> None:
    """The main help groups its options, shows units, lists the commands and the exit codes."""
    assert outcome(["--help"]) == 0
    shown = capsys.readouterr().out
    at = [shown.index(f"\n{group}:") for group in ("Constraints", "Model and data", "Search", "Output", "Commands")]
    assert at == sorted(at)
    for word in ("milliseconds", "10^6 bytes", "0.75 is 75 %", "seconds", "(default: 1)", "(default: ort-cpu)"):
        assert word in " ".join(shown.split())
    for command in cli.COMMANDS:
        assert f"\n  {command} " in shown
    for code in ("0 a point", "3 none", "2 bad", "130 interrupted"):
        assert code in " ".join(shown.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` names the distribution."""
    assert outcome(["--version"]) == 0
    assert capsys.readouterr().out.startswith("search (bitfront) ")


def test_help_starts_quickly() -> None:
    """Asking for help imports nothing heavy."""
    code = (
        "import sys\nfrom bitfront.search.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(','.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    loaded = set(done.stderr.split(","))
    assert "bitfront" in loaded
    assert not loaded & {"torch", "onnxruntime", "onnx", "onnx_ir", "plotly", "optuna", "pandas", "scipy", "rich"}
