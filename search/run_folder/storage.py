"""The database of a study: opening it, checking it, and turning what it raises into errors of ours.

A database that is damaged, locked, full or gone can make SQLAlchemy, its driver and Optuna raise almost anything, at
any moment; ``explain_errors`` makes one error of it that names the database and says what to do. Measurements are not
lost with it: they are in the run's cache as well.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from optuna.storages import RDBStorage
from sqlalchemy import URL, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SAWarning, SQLAlchemyError

from bitfront.core import EngineError, OutputError, UsageError
from bitfront.search.console.secrets import masked_url, without_secrets

_HINT = "give a database URL that Optuna reads, such as sqlite:///study.db"
_MOST = 300
_FILE = "study.db"
_CONNECT_S = 30  # a server that does not answer would be waited for much longer
_KEPT = "what was measured is kept in the run's cache as well, and is not measured again"
# Parts of what SQLite and servers say, for what can be told from nothing else.
_LOCKED = ("database is locked", "database table is locked", "lock wait timeout")
_UNWRITABLE = (
    "disk is full",
    "no space left",
    "disk full",
    "readonly database",
    "read-only",
    "disk i/o error",
    "quota",
)
_UNOPENABLE = ("unable to open", "could not connect", "connection refused", "connection failed", "timeout", "timed out")


def default_storage(folder: Path) -> str:
    """URL of the SQLite file in a run folder, whatever the folder is called."""
    return URL.create("sqlite", database=str((folder / _FILE).resolve())).render_as_string(hide_password=False)


def open_storage(url: str) -> RDBStorage:
    """Optuna's storage at a database URL; a SQLite file commits without waiting for the disk, safe against a kill.

    Raises:
        UsageError: If a SQLite file is damaged.
        Exception: Whatever Optuna, SQLAlchemy or a driver raises; see ``explain_errors``.
    """
    server = url.partition(":")[0].partition("+")[0] in ("postgresql", "mysql", "mariadb")
    waiting = {"connect_args": {"connect_timeout": _CONNECT_S}} if server and "connect_timeout" not in url else None
    storage = RDBStorage(url, engine_kwargs=waiting)
    if url.startswith("sqlite"):
        event.listen(storage.engine, "connect", _ease)
        storage.engine.dispose()
        with storage.engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
        if found != "ok":
            raise damaged_study(url, str(found))
    return storage


@contextmanager
def explain_errors(url: str) -> Iterator[None]:
    """Turn whatever goes wrong with a database into an error that explains it.

    Raises:
        UsageError: If the database cannot be opened, is locked or is damaged.
        OutputError: If it cannot be written: no space, no permission.
    """
    try:
        yield
    except EngineError:
        raise
    except Exception as error:
        raise _explanation(url, error) from error


def unopenable_storage(url: str, error: BaseException) -> UsageError:
    """The error for a storage that cannot be opened; the password of ``url`` is masked in it."""
    reason = without_secrets((str(error).strip() or type(error).__name__).splitlines()[0][:_MOST], url)
    if isinstance(error, ImportError) and error.name:
        hint = f"install the driver, Python module '{error.name}', or {_HINT}"
    else:
        hint = _HINT
    return UsageError(f"--storage: cannot open '{masked_url(url)}': {reason or type(error).__name__}", hint)


def check_storage(url: str) -> None:
    """Check that a database can be connected to; it is left as it is, and no SQLite file is made.

    Raises:
        UsageError: If the URL is malformed, its driver is missing, or the database refuses.
    """
    try:
        parsed = make_url(url)
        with warnings.catch_warnings():
            warnings.simplefilter("error", SAWarning)  # arguments that the driver would ignore
            engine = create_engine(parsed)  # loads the driver
        if parsed.get_backend_name() == "sqlite":
            _check_file(url, parsed.database)
        else:
            engine.connect().close()
        engine.dispose()
    except (SQLAlchemyError, SAWarning, ImportError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise unopenable_storage(url, error) from error


def damaged_study(url: str, reason: str) -> UsageError:
    """The error for a study that cannot be read any more."""
    place = _place(url)
    return UsageError(
        f"{place} is damaged: {_line(reason, url)}", f"move it away, then repeat the command with --resume: {_KEPT}"
    )


def _explanation(url: str, error: Exception) -> EngineError:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        if not isinstance(cause, Exception):
            break
        chain.append(cause)
    # SQLAlchemy wraps what the driver says, Optuna wraps SQLAlchemy: the innermost knows best.
    root = next((found for found in reversed(chain) if getattr(found, "orig", None) is not None), error)
    reason = _line(str(getattr(root, "orig", None) or root) or type(root).__name__, url)
    said, place = reason.lower(), _place(url)
    if any(part in said for part in _LOCKED):
        return UsageError(
            f"{place} is locked by another process", f"wait until that has ended, then repeat with --resume: {_KEPT}"
        )
    if any(part in said for part in _UNWRITABLE) or isinstance(root, PermissionError):
        return OutputError(
            f"cannot write {place}: {reason}",
            f"free some space, or make it writable, then repeat with --resume: {_KEPT}",
        )
    if _is_sqlite(url) and Path(make_url(url).database or "").is_file():
        return damaged_study(url, f"{type(root).__name__}: {reason}")
    if any(part in said for part in _UNOPENABLE) or not _is_sqlite(url):
        return unopenable_storage(url, error)
    return damaged_study(url, f"{type(root).__name__}: {reason}")


def _place(url: str) -> str:
    return (
        f"the study in '{make_url(url).database}'"
        if _is_sqlite(url)
        else f"--storage: the study in '{masked_url(url)}'"
    )


def _is_sqlite(url: str) -> bool:
    try:
        return make_url(url).get_backend_name() == "sqlite"
    except (ArgumentError, ValueError):
        return False


def _line(text: str, url: str) -> str:
    """The first line of what was said, without the URL's password."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return without_secrets(first[:_MOST], url) or "its words may hold the password"


def _check_file(url: str, database: str | None) -> None:
    if database and database.startswith("file:"):  # https://sqlite.org/uri.html
        database = unquote(urlsplit(database).path)
    if not database or database == ":memory:":
        raise UsageError(
            f"--storage: '{masked_url(url)}' names no file: the study would be gone with the process",
            "name one, as in sqlite:///study.db, or leave --storage out",
        )
    path = Path(database)
    if path.is_dir():
        raise UsageError(f"--storage: '{path}' is a folder, expected a database file", _HINT)
    if not path.parent.is_dir():
        raise UsageError(
            f"--storage: there is no folder '{path.parent}' for the database '{path.name}'",
            "make the folder, or name a file in one that is there",
        )


def _ease(connection: Any, _: object) -> None:
    """Make SQLite commit without waiting for the disk, which would take longer than many a measurement."""
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
    except sqlite3.OperationalError:
        pass  # a file system without shared memory, or a read-only file: the first real use says what is wrong
