"""What every test relies on: a quiet runtime, one thread for maths libraries, steady examples, the data folder.

Also the options: golden files anew, and tests in random order.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Both are read when the libraries are imported, so they are set here, before any test module is. One OpenMP thread
# keeps results of numpy and torch the same on machines with any number of cores, and parallel test runs apart.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Examples are the same in every run, and a busy machine fails none of them.
settings.register_profile(
    "suite", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

_REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files anew instead of comparing with them"
    )
    parser.addoption(
        "--shuffle",
        metavar="SEED",
        help="run the files in random order, and the tests of each; a seed repeats an order, 'random' draws one",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--shuffle") == "random":
        config.option.shuffle = str(random.randrange(2**32))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    seed = terminalreporter.config.getoption("--shuffle")
    if seed is not None:
        terminalreporter.write_line(f"in the order of --shuffle {seed}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files stay whole, since what a file makes once would be made again and again otherwise."""
    seed = config.getoption("--shuffle")
    if seed is None:
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    draw = random.Random(seed)
    groups = [draw.sample(group, len(group)) for group in files.values()]
    draw.shuffle(groups)
    items[:] = [item for group in groups for item in group]


@pytest.fixture(scope="session")
def update_golden(pytestconfig: pytest.Config) -> bool:
    """Whether golden files are to be written anew."""
    return bool(pytestconfig.getoption("--update-golden"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of pretrained weights and images; skips where it is absent."""
    folder = Path(os.environ.get("BITFRONT_DATA", _REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data folder '{folder}'; set BITFRONT_DATA")
    return folder
