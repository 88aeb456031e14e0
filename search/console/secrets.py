"""Passwords in database URLs, replaced before a URL or a text that quotes it is shown or kept.

A URL need not be well-formed: passwords hold ``@``, ``:``, ``/`` and ``?`` unescaped, and a parser that splits at
another place than the writer meant quotes a part of the password as a host or a port. So everything between the
user's colon and the last ``@`` counts as the password, and of the query only values that are known to be harmless
are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, unquote_plus

MASK = "***"
_SHORTEST_PART = 3  # a shorter part of a password occurs in any text
_PLAIN_QUERY = frozenset(
    {"application_name", "cache", "charset", "connect_timeout", "database", "driver", "host", "mode", "port", "sslmode"}
    | {"check_same_thread", "isolation_level", "timeout", "uri", "user"}
)
_SCHEME = re.compile(r"[a-z][\w+.-]*:/{1,3}", re.IGNORECASE)
_PATHS = ("sqlite:///", "sqlite+pysqlite:///")  # what follows is a path, which may hold any character
_QUERY = re.compile(r"([?&;])([^=&;#?]*)=([^&;#]*)")
# In free text a URL ends at a space or a quotation mark.
_URL = re.compile(r"[a-z][\w+.-]*:/{1,3}[^\s'\"`<>]+", re.IGNORECASE)


def masked_url(url: str) -> str:
    """``url`` with ``***`` for its password and for every value of its query that may be one."""
    start, end = _password_span(url)
    text = url[:start] + MASK + url[end:] if end > start else url
    return _QUERY.sub(lambda pair: f"{pair[1]}{pair[2]}={MASK if _is_secret(pair[2], pair[3]) else pair[3]}", text)


def masked_arguments(argv: Iterable[str]) -> list[str]:
    """A command line's words with the passwords of its URLs masked, ``--storage``'s however it is spelt."""
    words, storage = [], False
    for word in argv:
        option, separator, value = word.partition("=")
        if storage:
            words.append(masked_url(word))
        elif separator and option.startswith("--") and (option == "--storage" or _SCHEME.match(value)):
            words.append(f"{option}={masked_url(value)}")
        else:
            words.append(masked_url(word) if _SCHEME.match(word) else word)
        storage = word == "--storage"
    return words


def masked_text(text: str, argv: Iterable[str]) -> str:
    """``text`` with the passwords masked of every URL in it, and of those that it quotes from a command line."""
    argv = list(argv)
    for word, masked in zip(argv, masked_arguments(argv), strict=True):
        if masked != word:
            text = text.replace(word, masked).replace(
                word.partition("=")[2] or word, masked.partition("=")[2] or masked
            )
    # Names of layers may look like a URL; without a user or a query there is nothing to hide.
    return _URL.sub(lambda found: masked_url(found[0]) if "@" in found[0] or "?" in found[0] else found[0], text)


def without_secrets(text: str, url: str) -> str:
    """``text``, which may quote ``url`` or parts of it in any encoding, without the URL's passwords.

    Returns:
        The text with ``***`` in their place; empty where a part of a password may still stand in it.
    """
    secrets = _secrets(url)
    text = text.replace(url, masked_url(url))
    for form in sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True):
        if len(form) >= _SHORTEST_PART:
            text = text.replace(form, MASK)
    left = any(len(part) >= _SHORTEST_PART and part in text for secret in secrets for part in _parts(secret))
    # A password of one or two letters cannot be told from the words around it.
    return "" if left or any(len(secret) < _SHORTEST_PART for secret in secrets) else text


def _password_span(url: str) -> tuple[int, int]:
    """Span of the password as (start, end); equal where there is none."""
    scheme = _SCHEME.match(url)
    if url.lower().startswith(_PATHS):
        return (0, 0)
    begin = scheme.end() if scheme else 0
    at = url.rfind("@")
    if at < begin:
        # No host: what its writer meant as the password stands where a port is expected.
        found = re.compile(r"[^:/?#]*:([^/?#]*)").match(url, begin) if scheme else None
        return found.span(1) if found and not found[1].isdigit() and url[begin] != "[" else (0, 0)
    user = re.compile(r"[^:@/?#]*").match(url, begin)
    assert user is not None
    if user.end() == at:
        return (0, 0) if scheme else (0, at)
    return (user.end() + 1 if url[user.end()] == ":" else begin, at)


def _secrets(url: str) -> set[str]:
    start, end = _password_span(url)
    values = {pair[3] for pair in _QUERY.finditer(url) if _is_secret(pair[2], pair[3])}
    return {secret for secret in (url[start:end], *values) if secret and secret != MASK}


def _is_secret(name: str, value: str) -> bool:
    return bool(value) and unquote(name).strip().lower() not in _PLAIN_QUERY


def _parts(secret: str) -> set[str]:
    """Parts of a secret that a parser may take for a host or a port: between two of the characters it splits at."""
    found = set()
    for form in _forms(secret):
        pieces = re.split(r"([@:/?#&=\s])", form)
        found |= {"".join(pieces[i:j]) for i in range(0, len(pieces), 2) for j in range(i + 1, len(pieces) + 1, 2)}
    return found


def _forms(secret: str) -> set[str]:
    """A secret as drivers and parsers write it: as given, decoded, encoded, as a Python literal."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    encoded = {code(text, safe="") for text in plain for code in (quote, quote_plus)}
    return plain | encoded | {repr(text)[1:-1] for text in plain}
