"""Whether ``--storage`` can be opened, told before a network is loaded, without its password in any message."""

from __future__ import annotations

import warnings
from pathlib import Path
from urllib.parse import unquote, urlsplit

from precision import UsageError
from search.secrets import masked_url, without_secrets

_HINT = "give a database URL that Optuna reads, such as sqlite:///study.db"
_MOST = 300


def cannot_open(url: str, error: BaseException) -> UsageError:
    """The error for a storage that cannot be opened; the password of ``url`` is masked in it."""
    reason = without_secrets((str(error).strip() or type(error).__name__).splitlines()[0][:_MOST], url)
    if isinstance(error, ImportError) and error.name:
        hint = f"install the driver, Python module '{error.name}', or {_HINT}"
    else:
        hint = _HINT
    return UsageError(f"--storage: cannot open '{masked_url(url)}': {reason or type(error).__name__}", hint)


def check_storage(url: str) -> None:
    """Connect to a database, and leave it as it is; a SQLite file that is not there is not made.

    Raises:
        UsageError: If the URL is malformed, its driver is missing, or the database refuses.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SAWarning, SQLAlchemyError

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
        raise cannot_open(url, error) from error


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
