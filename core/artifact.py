"""A model as it is deployed: its files, their format, and the settings that a runtime's session must be given with it.

On disk the main file has any name, and the others lie beside it. What is more than one ONNX file without settings has a
description next to its main file, ``net.onnx.json`` beside ``net.onnx``; a model without one is a single ONNX file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bitfront.core.blob import Blob, FileRange
from bitfront.core.document import Form, JsonValue, PathBelow
from bitfront.core.errors import ConfigError
from bitfront.core.files import unwritable, write_bytes, write_text
from bitfront.core.store import digest

ONNX = "onnx"
SCHEMA_VERSION = 1
_MAIN = "model.onnx"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A model as it is deployed.

    Attributes:
        files: Name → bytes, in memory or not. Names are relative paths; other files than the main one are referred to
            by theirs from within it, and models are saved side by side, so these names must differ from model to model.
        main: Name of the file that a runtime opens.
        format: Format of the main file: ``onnx``.
        settings: Key → value of the session settings that the model must be run with, by the runtime's own names.
    """

    files: Mapping[str, bytes | Blob]
    main: str
    format: str = ONNX
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.main in self.files, f"the main file {self.main} is none of {', '.join(self.files)}"

    @classmethod
    def onnx(cls, data: bytes | Blob, settings: Mapping[str, str] | None = None) -> Artifact:
        """A single ONNX file.

        Args:
            data: The file.
            settings: As in ``Artifact``.
        """
        return cls(files={_MAIN: data}, main=_MAIN, settings=dict(settings or {}))

    @property
    def data(self) -> bytes:
        """The main file, in memory."""
        return bytes(self.files[self.main])

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(map(len, self.files.values()))

    @property
    def is_plain(self) -> bool:
        """Whether this is one ONNX file without settings."""
        return self.format == ONNX and len(self.files) == 1 and not self.settings

    @property
    def content(self) -> Any:
        """Parts that tell this artifact from others, for digests: the bytes alone of a plain one.

        Of further files only the digests of their parts, so that candidates of one network are told apart without
        reading all its weights; what was put together from parts and what was loaded again are two.
        """
        if self.is_plain:
            return self.files[self.main]
        others = {
            name: (data if isinstance(data, Blob) else Blob([data])).parts_digest
            for name, data in self.files.items()
            if name != self.main
        }
        return {"main": self.files[self.main], "files": others, "format": self.format, "settings": dict(self.settings)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ``content``."""
        return digest(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description(JsonValue):
    """Description of a model that is more than one ONNX file; it stands beside its main file.

    Attributes:
        schema_version: Version of this form.
        format: Format of the main file.
        files: Names of the other files.
        settings: Session settings, key → value.
    """

    schema_version: int
    format: str
    files: tuple[PathBelow, ...]
    settings: Mapping[str, str]


DESCRIPTION_FORM: Form[Description] = Form(
    kind=Description,
    name="model-description",
    version=SCHEMA_VERSION,
    problem="does not describe a model",
    hint="copy the model and the .json file beside it again, unedited",
    version_hint="apply the config anew with this version",
)


def description_file(model: Path) -> Path:
    """Path of a model's description."""
    return model.with_name(f"{model.name}.json")


def save_artifact(artifact: Artifact, path: Path) -> None:
    """Write an artifact's main file to ``path``, and whatever else it has beside it.

    Raises:
        OutputError: If a file cannot be written.
    """
    others = tuple(name for name in artifact.files if name != artifact.main)
    for name in others:
        write_bytes(path.parent / name, artifact.files[name])
    beside = description_file(path)
    if artifact.is_plain:
        try:
            beside.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(beside, error) from error
    else:
        found = Description(
            schema_version=SCHEMA_VERSION, format=artifact.format, files=others, settings=dict(artifact.settings)
        )
        write_text(beside, json.dumps(found.to_json(), indent=1) + "\n")
    write_bytes(path, artifact.files[artifact.main])


def file_blob(path: Path) -> Blob:
    """A file's bytes, which are read when they are used.

    Raises:
        OSError: If there is no such file.
    """
    return Blob([FileRange(path=path.resolve(), offset=0, length=path.stat().st_size)])


def load_artifact(path: Path) -> Artifact:
    """The artifact whose main file is ``path``; other files than that are read when they are used.

    Raises:
        ConfigError: If its description is damaged.
        OSError: If a file cannot be read.
    """
    data, beside = path.read_bytes(), description_file(path)
    if not beside.exists():
        return Artifact.onnx(data)
    found = DESCRIPTION_FORM.load(beside)
    if path.name in found.files:
        raise ConfigError(f"'{beside}': file '{path.name}' is the model itself", DESCRIPTION_FORM.hint)
    files: dict[str, bytes | Blob] = {path.name: data, **{name: file_blob(path.parent / name) for name in found.files}}
    return Artifact(files=files, main=path.name, format=found.format, settings=dict(found.settings))
