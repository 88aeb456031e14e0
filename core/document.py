"""JSON files read into values, and refused with the file's name and the field's where they differ from their form.

A form is a frozen dataclass. pydantic decodes it strictly: no text for a number, no truth value for a whole number, no
1.0 for 1, nothing infinite, no unknown field. What it does not look at is checked in ``json_text``. Nothing in a file
names code or is run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Self, TypeVar, cast

from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from bitfront.core.errors import ConfigError, EngineError, MalformedError
from bitfront.core.json_text import MAX_JSON_BYTES, field_name, parse_json, read_text, shown, walk

LARGEST_FLOAT32 = 3.4028234663852886e38
_SMALLEST_FLOAT32 = 1.401298464324817e-45

_DIGEST, _DIGEST_OR_NONE = r"^[0-9a-f]{64}$", r"^([0-9a-f]{64})?$"
Digest = Annotated[str, Field(pattern=_DIGEST)]
"""A SHA-256 in hexadecimal digits, which names content and can be no path."""
DigestOrNone = Annotated[str, Field(pattern=_DIGEST_OR_NONE)]
"""A SHA-256, or an empty text where there is nothing to name."""
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
NonNegative = Annotated[float, Field(ge=0, le=1e15)]
Number = Annotated[float, Field(ge=-1e300, le=1e300)]
Float32 = Annotated[float, Field(ge=-LARGEST_FLOAT32, le=LARGEST_FLOAT32)]
PositiveFloat32 = Annotated[float, Field(ge=_SMALLEST_FLOAT32, le=LARGEST_FLOAT32)]


def _below(text: str) -> str:
    path = PurePosixPath(text)
    odd = any(ord(character) < 32 for character in text) or any(sign in text for sign in "\\:")
    if not path.parts or path.is_absolute() or ".." in path.parts or odd:
        raise ValueError(f"expected a relative path inside the run folder, got {shown(text)}")
    return text


PathBelow = Annotated[str, AfterValidator(_below)]
"""A path relative to the folder that the file lies in, which cannot lead out of it, nor be a web address."""

T = TypeVar("T")


class JsonValue:
    """A dataclass with a strict JSON form, one key a field; a subclass whose JSON differs overrides ``to_json``."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The dataclass's schema; what ``__post_init__`` refuses becomes the problem of this field."""
        schema = handler(source)
        if not hasattr(cls, "__post_init__"):
            return schema
        cast("dict[str, Any]", handler.resolve_ref_schema(schema))["post_init"] = False
        return core_schema.no_info_after_validator_function(_post_init, schema)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, one key a field."""
        return asdict(cast("Any", self))

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read ``to_json``'s form.

        Raises:
            MalformedError: If a field is unknown, missing, or not what it must be; names it.
        """
        try:
            found: Self = _adapter(cls).validate_json(json.dumps(data))
        except ValidationError as error:
            raise MalformedError(problem(error)) from error
        return found


def _post_init(value: Any) -> Any:
    try:
        value.__post_init__()
    except EngineError as error:
        raise PydanticCustomError("refused", "{message}", {"message": error.message}) from error
    return value


def _adapter(kind: Any) -> TypeAdapter[Any]:
    return _made_adapter(kind)


@cache
def _made_adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form(Generic[T]):
    """The form of one kind of JSON file.

    Attributes:
        kind: The dataclass of the whole file; its ``schema_version`` is ``version``.
        name: What the published schema is called.
        version: The schema version that is read.
        problem: What a file is that does not fit, in words: ``is damaged``.
        hint: What to do then.
        failure: The error for it.
        version_hint: What to do about a file of another version.
        version_failure: The error for it.
    """

    kind: type[T]
    name: str
    version: int
    problem: str
    hint: str
    failure: type[EngineError] = ConfigError
    version_hint: str
    version_failure: type[EngineError] = ConfigError

    def load(self, path: Path) -> T:
        """Read a file.

        Raises:
            EngineError: ``failure`` or ``version_failure``, if it cannot be read or does not fit.
        """
        try:
            text = read_text(path, MAX_JSON_BYTES)
        except MalformedError as error:
            raise self.failure(f"'{path}' {self.problem}: {error.message}", self.hint) from error
        return self.decode(text, str(path))

    def decode(self, text: str, source: str) -> T:
        """Read a file's text; ``source`` names it in errors.

        Raises:
            EngineError: As ``load``.
        """
        try:
            data = parse_json(text)
            version = data.get("schema_version") if isinstance(data, dict) else None
            if type(version) is not int or version != self.version:
                came = "none" if version is None else shown(version)
                raise self.version_failure(
                    f"'{source}': expected schema version {self.version}, got {came}", self.version_hint
                )
            value: T = _adapter(self.kind).validate_json(text)
            _check_finite(data)
        except (MalformedError, ValidationError) as error:
            what = problem(error) if isinstance(error, ValidationError) else error.message
            raise self.failure(f"'{source}' {self.problem}: {what}", self.hint) from error
        return value

    def schema(self) -> dict[str, Any]:
        """The form as JSON Schema (draft 2020-12)."""
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_adapter(self.kind).json_schema()}
        return cast("dict[str, Any]", _first_lines(schema))


def _check_finite(data: Any) -> None:
    """Refuse NaN and infinity, which Python reads from JSON, in fields that hold any JSON.

    Raises:
        MalformedError: If there is one.
    """
    for path, item in walk(data):
        if isinstance(item, float) and not math.isfinite(item):
            raise MalformedError(f"{field_name(path)}: expected a finite number, got {shown(item)}")


def decode_json(kind: type[T], text: str) -> T:
    """Read JSON that lies in another file, such as a cell of a table.

    Raises:
        MalformedError: If it is no JSON, or not what ``kind`` says.
    """
    parse_json(text)
    try:
        value: T = _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise MalformedError(problem(error)) from error
    return value


def problem(error: ValidationError) -> str:
    """The first thing that is wrong, in words: field, what was expected and what came."""
    first = error.errors(include_url=False)[0]
    where, text = field_name(first["loc"]), _what(first["type"], first["msg"], first.get("ctx", {}))
    if text.startswith("expected") and first["type"] not in _TELL_WHAT_CAME:
        text += f", got {shown(first['input'])}"
    return f"{where}: {text}" if where else text


_TELL_WHAT_CAME = ("value_error", "refused")  # these say themselves what came
_PATTERNS = {
    _DIGEST: "64 hexadecimal digits",
    _DIGEST_OR_NONE: "64 hexadecimal digits or nothing",
}  # others as they are


def _what(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """A pydantic message in this program's words."""
    match kind:
        case "json_invalid":
            return f"it cannot be read as JSON: {context['error']}"
        case "unexpected_keyword_argument":
            return "unknown field"
        case "missing":
            return "is missing"
        case "refused":
            return str(context["message"])
        case "value_error":
            return str(context["error"])
        case "string_pattern_mismatch":
            return f"expected {_PATTERNS.get(context['pattern'], 'text of the pattern ' + context['pattern'])}"
        case "too_long":
            return f"expected at most {context['max_length']} items"
        case "too_short":
            return f"expected at least {context['min_length']} items"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            sign, limit = next(iter(context.items()))
            return f"expected a number {_SIGNS[sign]} {limit:g}"
    text = message.replace("Input should be", "expected").replace("a valid array", "a list")
    return text if text.startswith("expected") else f"expected {text[:1].lower()}{text[1:]}"


_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def _first_lines(schema: Any) -> Any:
    """A schema whose descriptions are the first lines of docstrings, which say what a thing is."""
    if isinstance(schema, dict):
        return {
            key: value.partition("\n")[0] if key == "description" and isinstance(value, str) else _first_lines(value)
            for key, value in schema.items()
        }
    return [_first_lines(item) for item in schema] if isinstance(schema, list) else schema
