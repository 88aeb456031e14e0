"""Passwords of database URLs, however a URL is spelt or misspelt, are neither shown nor kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfront.core import UsageError
from bitfront.search.console.secrets import masked_arguments, masked_text, masked_url, without_secrets
from bitfront.search.run_folder.storage import check_storage, unopenable_storage
from tests.search.command_line import enter, outcome, write_files

SECRET = "S3CRET"
MASKED = {
    "postgresql+psycopg://me:S3CRET@127.0.0.1:1/x": "postgresql+psycopg://me:***@127.0.0.1:1/x",
    "mysql://me:S3CRET@h/x": "mysql://me:***@h/x",
    "postgresql://me:%533CRET@h/x": "postgresql://me:***@h/x",
    "postgresql://me:a@S3CRET@h/x": "postgresql://me:***@h/x",
    "postgresql://me:a:S3CRET@h/x": "postgresql://me:***@h/x",
    "postgresql://me:a/S3CRET@h/x": "postgresql://me:***@h/x",
    "postgresql://me:a?b=S3CRET@h/x": "postgresql://me:***@h/x",
    "postgresql://me:S3 CRET@h/x": "postgresql://me:***@h/x",
    "postgresql://me/S3CRET@h/x": "postgresql://***@h/x",
    "postgresql://S3CRET@x@h": "postgresql://***@h",
    "postgresql://me:S3CRET": "postgresql://me:***",
    "postgresql://me:S3CRET/x": "postgresql://me:***/x",
    "postgresql:me:S3CRET@h": "postgresql:***@h",
    "postgresql//me:S3CRET@h": "***@h",
    "me:S3CRET@h": "me:***@h",
    "S3CRET@h": "***@h",
    "redis://:S3CRET@h": "redis://:***@h",
    "postgresql://h/x?user=me&password=S3CRET": "postgresql://h/x?user=me&password=***",
    "postgresql://h/x?pass%77ord=S3CRET&sslmode=require": "postgresql://h/x?pass%77ord=***&sslmode=require",
    "mssql+pyodbc:///?odbc_connect=PWD%3DS3CRET": "mssql+pyodbc:///?odbc_connect=***",
    "sqlite+pysqlcipher://:S3CRET@/x.db": "sqlite+pysqlcipher://:***@/x.db",
}
WITHOUT = [
    "sqlite:///study.db",
    "sqlite:////data/a@b:c/study.db",
    "postgresql://me@h:5432/x",
    "postgresql://h:5432/x?sslmode=require",
    "postgresql://[::1]:5432/x",
    "study.db",
    "",
]


@pytest.mark.parametrize("url", MASKED)
def test_the_password_of_a_url_is_masked(url: str) -> None:
    """User, host, port and database can still be read where they can be told from the password."""
    assert masked_url(url) == MASKED[url]


@pytest.mark.parametrize("url", WITHOUT)
def test_a_url_without_a_password_stays(url: str) -> None:
    """Nothing is hidden that is no secret."""
    assert masked_url(url) == url


@pytest.mark.parametrize("url", MASKED)
def test_messages_and_command_lines_hide_it(url: str) -> None:
    """The message for a URL that cannot be opened, the recorded command, and any message that quotes the words."""
    for argv in (["--storage", url], [f"--storage={url}"]):
        assert not any(SECRET in word or "S3 CRET" in word for word in masked_arguments(argv))
        quoted = masked_text(f"unrecognized arguments: {' '.join(argv)} more", argv)
        assert SECRET not in quoted
        assert quoted.endswith(" more")
    error = unopenable_storage(url, ValueError(f"invalid literal: '{url.partition('://')[2] or url}'"))
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    "quoted",
    ["S3C@R/T x", "S3C%40R%2FT%20x", "S3C%40R%2FT+x", repr("S3C@R/T x"), "host 'R/T x@h' is unknown", "port 'T x@h'"],
)
def test_drivers_quote_a_password_in_any_encoding(quoted: str) -> None:
    """As given, encoded or decoded, it is masked; where a parser split it at another place nothing is said."""
    for url in ("postgresql://me:S3C@R/T x@h/y", "postgresql://me:S3C%40R%2FT%20x@h/y"):
        said = without_secrets(f"failed: {quoted}!", url)
        assert said in ("failed: ***!", "failed: '***'!", "")


def test_a_short_password_is_not_hidden_in_words() -> None:
    """One or two letters cannot be told from the words around them, so the driver's words are left out."""
    error = unopenable_storage("postgresql://me:ab@h", ValueError("a fabulous failure"))
    assert error.message == "--storage: cannot open 'postgresql://me:***@h': ValueError"


def test_names_that_look_like_urls_are_shown() -> None:
    """A layer's name without a user or a query is no URL with a password."""
    assert masked_text("layer 'a:/b:c' and see https://h/x", []) == "layer 'a:/b:c' and see https://h/x"


STORAGES = {
    "driver missing": ("postgresql+nosuchdriver://me:S3CRET@h/x", "nosuchdriver"),
    "no database known": ("nosuch://me:S3CRET@h/x", "nosuch"),
    "no URL": ("study", "cannot open 'study'"),
    "no port": ("postgresql://me:S3CRET@h:x/y", "cannot open"),
    "no file": ("sqlite://", "names no file"),
    "in memory": ("sqlite:///:memory:", "names no file"),
    "no folder": ("sqlite:///there/study.db", "no folder 'there'"),
    "a folder": ("sqlite:///.", "is a folder"),
    "arguments that are ignored": ("sqlite:///a.db?colour=blue", "cannot open"),
    "a path too long": (f"sqlite:///{'x' * 5000}", "too long"),
}


@pytest.mark.parametrize("case", STORAGES)
def test_a_storage_is_refused_before_anything_is_loaded(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option and the reason are named, the password is not, and no file is made."""
    url, words = STORAGES[case]
    enter(tmp_path, monkeypatch)
    files = write_files(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("bitfront.search.inputs.loading.open_source", pytest.fail)
    assert outcome(files.argv("--storage", url)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --storage: ")
    assert words in said
    assert SECRET not in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", [["--storge", "URL"], ["--storge=URL"], ["--seed", "1", "URL"], ["--seed", "URL"]])
def test_a_misspelt_option_does_not_show_it(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A URL that ends where it was not meant to be is quoted without its password."""
    assert outcome([word.replace("URL", "postgresql://me:S3 CRET@h") for word in words]) == 2
    said = capsys.readouterr().err
    assert "CRET" not in said
    assert "postgresql://me:***@h" in said


def test_a_good_storage_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in a folder that is there may be made later, and is not made by the check."""
    monkeypatch.chdir(tmp_path)
    check_storage("sqlite:///study.db")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="no folder 'a'"):
        check_storage("sqlite:///a/study.db")


def test_a_password_is_nowhere_after_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither printed nor in a file of the run folder, the recorded command included, where the storage works."""
    files, out = write_files(tmp_path), tmp_path / "run"
    url = f"sqlite:///file:{tmp_path}/kept.db?uri=true&password=S3CRET"
    short = ("--max-drop", "0.9", "--trials", "1", "--precisions", "fp32", "--sensitivity-samples", "4")
    assert outcome(files.argv(*short, "--out", str(out), "--storage", url)) == 0
    said = capsys.readouterr()
    assert (tmp_path / "kept.db").is_file()
    assert SECRET not in said.out + said.err
    assert "password=***" in (out / "measurement.json").read_text()
    assert [path.name for path in out.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []
