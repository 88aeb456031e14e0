"""Text that tells a person's own object by what it computes, for the identity of runs and of what they keep."""

from __future__ import annotations

import uuid

from bitfront.search.run_folder.object_digest import UndigestibleError, object_digest

UNTOLD = "cannot be told apart from others: "


def code_identity(value: object, name: str) -> str:
    """Name and digest of a person's own object; where it cannot be digested, a text that no other run has.

    Args:
        value: A function, a class, an object.
        name: What it is called.
    """
    try:
        return f"{name} {object_digest(value, name)}"
    except UndigestibleError as error:
        return f"{name} {uuid.uuid4().hex} {UNTOLD}{error}"
