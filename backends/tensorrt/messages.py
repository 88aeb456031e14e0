"""Messages of TensorRT: its log, collected, and its errors put into words that name the node.

TensorRT tells why a build failed only through the logger; ``build_serialized_network`` itself gives None. One logger
serves a process, since the library keeps the first one it meets for what happens deep inside.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorrt as trt

_KEPT = 200
_ERRORS = frozenset({"ERROR", "INTERNAL_ERROR"})
_WORDS = 3
# What TensorRT puts in front of a message says where in its own sources it arose.
_SOURCE = re.compile(r"^(?:\[[^\]]*\]\s*|(?:[\w:]+: )?Error Code \d+: )+")


class Messages:
    """The last errors."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque(maxlen=_KEPT)

    def add(self, severity: str, text: str) -> None:
        """Keep a message if it is an error."""
        if severity in _ERRORS:
            self._kept.append(text)

    def clear(self) -> None:
        """Forget everything; done before each build, so that what is kept belongs to it."""
        self._kept.clear()

    def errors(self) -> tuple[str, ...]:
        """Texts of the errors, oldest first."""
        return tuple(self._kept)

    def last(self) -> str:
        """The last error, on one line."""
        return _bare(self._kept[-1]) if self._kept else "TensorRT gave no reason"


def open_log() -> tuple[trt.ILogger, Messages]:
    """The process's logger for TensorRT and what it has collected."""
    import tensorrt as trt

    return _open_log(trt.ILogger)


@cache
def _open_log(_: type) -> tuple[trt.ILogger, Messages]:
    import tensorrt as trt

    messages = Messages()

    # Of unknown type where TensorRT has no stubs, which the type checker then tells.
    class Log(trt.ILogger):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            messages.add(severity.name, msg)

    return Log(), messages


def parser_reason(parser: trt.OnnxParser) -> str:
    """Reason why the parser refused a model: the first error with its node, and how many more there are."""
    errors = [found for index in range(parser.num_errors) if (found := parser.get_error(index)) is not None]
    if not errors:
        return "the parser gave no reason"
    first = errors[0]
    name, operator = first.node_name(), first.node_operator()
    kind = f" ({operator})" if operator else ""
    where = f"node '{name}'{kind}: " if name else ""
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}{_bare(first.desc())}{more}"


def build_reason(errors: Sequence[str], nodes: Iterable[str]) -> str:
    """Reason why a build failed.

    Args:
        errors: What the logger collected, oldest first.
        nodes: Names of the model's nodes, to be looked for in it.
    """
    if not errors:
        return "the builder gave no reason"
    last = [_bare(text) for text in errors[-_WORDS:]]
    found = mentioned(" ".join(last), nodes)
    where = f"node{'s' if len(found) > 1 else ''} {', '.join(repr(name) for name in found)}: " if found else ""
    return where + "; ".join(dict.fromkeys(last))


def mentioned(text: str, nodes: Iterable[str]) -> tuple[str, ...]:
    """Names that stand in the text as whole words, three at most, in the order in which they first do.

    A name inside a longer one (``conv`` in ``conv.1``) does not count; both ends of a range do, which TensorRT writes
    as ``ForeignNode[first...last]``.
    """
    found: dict[str, int] = {}
    taken: list[range] = []
    for name in sorted({name for name in nodes if name}, key=lambda name: (-len(name), name)):
        for match in re.finditer(rf"(?<![\w/])(?:(?<=\.\.\.)|(?<!\.)){re.escape(name)}(?![\w/]|\.\w)", text):
            span = range(match.start(), match.end())
            if not any(span.start < other.stop and other.start < span.stop for other in taken):
                taken.append(span)
                found.setdefault(name, span.start)
    return tuple(sorted(found, key=found.__getitem__)[:_WORDS])


def _bare(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return _SOURCE.sub("", " ".join(lines)) or "no description"
