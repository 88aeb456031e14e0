"""A database in whatever condition: what can be read is what was written, everything else is an error that names it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from bitfront.core import EngineError, OutputError, UsageError
from bitfront.report.results import RunResults
from bitfront.search.options import RunOptions
from bitfront.search.run_folder import storage, study
from bitfront.search.run_folder.storage import default_storage
from bitfront.search.run_folder.study import Study, past_trials
from bitfront.search.space.space import Space
from bitfront.search.trial import Trial
from tests.search import toy
from tests.search.toy_runs import elsewhere, options, search

# Fixtures are found by name in the module.
__all__ = ["elsewhere"]


@pytest.fixture(autouse=True)
def _on_disk(elsewhere: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real database, after ``elsewhere`` has put one in memory."""
    assert elsewhere
    monkeypatch.setattr(study, "open_storage", storage.open_storage)


@pytest.fixture
def finished(tmp_path: Path) -> RunOptions:
    """The options of a finished run."""
    asked = options(tmp_path / "run", trials=6)
    search(asked)
    return asked


@pytest.mark.parametrize(
    "name", ["a?b", "a#b", "100%41", "with space", "é'\"", "-dash", "{braces}", "n" * 200, "a&b=c+d"]
)
def test_the_study_lies_in_the_run_folder(tmp_path: Path, name: str) -> None:
    """Whatever that is called, and nothing beside it."""
    folder = tmp_path / name
    folder.mkdir()
    opened = storage.open_storage(default_storage(folder))
    opened.engine.dispose()
    assert (folder / "study.db").is_file()
    assert list(tmp_path.iterdir()) == [folder]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "cut within a page": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "text": lambda path: path.write_text("what is this?\n" * 500),
    "another database": lambda path: _other(path),
    "a folder": lambda path: _folder(path),
}


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _other(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE studies (x)")
    connection.close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_study_is_named_and_costs_nothing(finished: RunOptions, damage: str) -> None:
    """Moved away, as the hint says, the run is resumed with every measurement it had."""
    before, path = RunResults.load(finished.out), finished.out / "study.db"
    DAMAGES[damage](path)
    with pytest.raises(UsageError, match=r"study\.db' is damaged|cannot open '.*study\.db'") as caught:
        search(replace(finished, resume=True))
    assert caught.value.hint
    path.rename(finished.out / "study.damaged")
    backend = toy.ToyBackend()
    search(replace(finished, resume=True), backend)
    after = RunResults.load(finished.out)
    assert {(t.size_bytes, t.ratio) for t in before.trials} <= {(t.size_bytes, t.ratio) for t in after.trials}


@pytest.mark.parametrize("content", [b"", None], ids=["empty", "gone"])
def test_an_empty_study_is_begun_anew(finished: RunOptions, content: bytes | None) -> None:
    """SQLite takes an empty file for a new database."""
    path = finished.out / "study.db"
    path.unlink() if content is None else path.write_bytes(content)
    search(replace(finished, resume=True))
    assert len(RunResults.load(finished.out).trials) == 6


def test_no_turned_byte_is_believed(finished: RunOptions) -> None:
    """Wherever it is: an error of ours, or exactly the trials that were written."""
    path, space = finished.out / "study.db", _space(finished)
    content, url = path.read_bytes(), default_storage(finished.out)
    (name,) = (summary.study_name for summary in storage.open_storage(url).get_all_studies())
    told = past_trials(url, name, space)
    assert len(told) == 6
    messages = []
    for at in [*range(0, 100, 9), *range(101, len(content), len(content) // 50)]:
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :])
        try:
            found = past_trials(url, name, space)
        except EngineError as error:
            messages.append(error.message)
        else:
            assert all(trial in told for trial in found), at
    assert messages
    assert all("study.db" in message for message in messages)


def test_changed_schemes_are_not_believed(finished: RunOptions) -> None:
    """Codes of other schemes that the space has too."""
    with sqlite3.connect(finished.out / "study.db") as connection:
        assert connection.execute(
            "UPDATE trial_params SET param_value = 1 - param_value WHERE param_value < 2"
        ).rowcount
    connection.close()
    with pytest.raises(UsageError, match=r"study\.db' is damaged: trial \d+ is not as it was written"):
        search(replace(finished, resume=True))


@pytest.mark.parametrize(("old", "new"), [("0.5", "0.7"), ("ladder", "solver"), ("complete", "stopped")])
def test_a_changed_cell_is_not_believed(finished: RunOptions, old: str, new: str) -> None:
    """A database that is sound to SQLite, but does not hold what was told."""
    path = finished.out / "study.db"
    with sqlite3.connect(path) as connection:
        table = "UPDATE trial_user_attributes SET value_json = replace(value_json, ?, ?)"
        assert connection.execute(table, (old, new)).rowcount
    connection.close()
    with pytest.raises(UsageError, match=r"study\.db' is damaged: trial \d+ is not as it was written"):
        search(replace(finished, resume=True))


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("database or disk is full", OutputError, r"cannot write the study in '.*study\.db': database or disk is full"),
        ("attempt to write a readonly database", OutputError, r"cannot write the study in '.*study\.db'"),
        ("disk I/O error", OutputError, r"cannot write the study in '.*study\.db'"),
        ("database is locked", UsageError, r"the study in '.*study\.db' is locked by another process"),
        ("database disk image is malformed", UsageError, r"the study in '.*study\.db' is damaged"),
    ],
)
def test_what_fails_while_searching_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, kind: type[EngineError], message: str
) -> None:
    """The third trial cannot be filed; resumed, the run goes on, and times no artifact twice."""
    real, left = Study.tell, [2]

    def fail(*_: object) -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError(said))

    def tell(self: Study, trial: Trial) -> None:
        left[0] -= 1
        if left[0] < 0:
            monkeypatch.setattr(self._kept, "add_trial", fail)
        real(self, trial)

    asked = options(tmp_path / "run", trials=6)
    with monkeypatch.context() as patch:
        patch.setattr(Study, "tell", tell)
        with pytest.raises(kind, match=message) as caught:
            search(asked)
    assert "--resume" in caught.value.hint
    assert search(replace(asked, resume=True)).exit_code == 0
    assert len(RunResults.load(asked.out).trials) == 6


def test_a_database_that_is_held_by_another_is_named(finished: RunOptions) -> None:
    """After SQLite's own wait, which is made short here."""
    url = default_storage(finished.out) + "?timeout=0.1"
    holder = sqlite3.connect(finished.out / "study.db", isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    holder.execute("CREATE TABLE held (x)")
    try:
        with pytest.raises(UsageError, match=r"the study in '.*study\.db' is locked by another process"):
            past_trials(url, "any", _space(finished))
    finally:
        holder.close()


def test_no_password_is_shown() -> None:
    """What a driver that is missing is said of."""
    with pytest.raises(UsageError, match=r"--storage: cannot open 'postgresql\+nodriver://me:") as caught:
        past_trials("postgresql+nodriver://me:secret@host/db", "any", None)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


def _space(asked: RunOptions) -> Space:
    """The toy's, as a run would build it."""
    from bitfront.search.events import SilentListener
    from bitfront.search.execution.explore import sensitivity_context
    from bitfront.search.execution.sensitivities import calibrate_and_score, space_of
    from bitfront.search.prepare import prepare

    session = prepare(
        toy.workload(), toy.ToyLowerer(), toy.ToyBackend(), replace(asked, resume=True), SilentListener(), ""
    )
    table = calibrate_and_score(sensitivity_context(session))
    return space_of(session.runner, table, session.options.precisions)
