"""JSON Schemas of the files a run leaves, as ``docs/schemas/`` publishes them.

They are made from the forms that reading goes by, so they cannot say anything else:

    python -m bitfront.search.schemas docs/schemas
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from bitfront.core import write_text
from bitfront.core.artifact import DESCRIPTION_FORM
from bitfront.core.backends_file import BACKENDS_FORM
from bitfront.core.config import CONFIG_FORM
from bitfront.core.measurement_file import MEASUREMENT_FORM
from bitfront.search.run_folder.identity import RUN_FORM

_FORMS = (CONFIG_FORM, DESCRIPTION_FORM, MEASUREMENT_FORM, BACKENDS_FORM, RUN_FORM)


def schema_texts() -> Mapping[str, str]:
    """File name → the text of a schema."""
    return {f"{form.name}.schema.json": json.dumps(form.schema(), indent=1) + "\n" for form in _FORMS}


def write_schemas(folder: Path) -> None:
    """Write every schema into ``folder``.

    Raises:
        OutputError: If one cannot be written.
    """
    for name, text in schema_texts().items():
        write_text(folder / name, text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bitfront.search.schemas FOLDER")
    write_schemas(Path(sys.argv[1]))
