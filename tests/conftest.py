"""What every test relies on: a quiet runtime, one thread for maths libraries, the data folder, golden files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Both are read when the libraries are imported, so they are set here, before any test module is. One OpenMP thread
# keeps results of numpy and torch the same on machines with any number of cores, and parallel test runs apart.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

_REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files anew instead of comparing with them"
    )


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
