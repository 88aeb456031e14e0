"""Columns of Arrow files as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitfront.core import Array, DataError
from bitfront.core.files import check_readable
from bitfront.core.ragged import ragged


def read_table(files: Sequence[Path], columns: Sequence[str]) -> Any:
    """Columns of Arrow stream files, one behind the other, as a ``pyarrow.Table`` that is mapped, not read.

    Raises:
        DataError: If a file is damaged or lacks a column.
    """
    import pyarrow
    from pyarrow import ipc

    tables = []
    for path in files:
        check_readable(path, DataError, "an Arrow file", "write the data set again with save_to_disk")
        try:
            tables.append(ipc.open_stream(pyarrow.memory_map(str(path))).read_all().select(list(columns)))
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            raise DataError(
                f"'{path}' is no complete Arrow file of columns {', '.join(columns)} ({str(error)[:120]})",
                "write the data set again with save_to_disk",
            ) from error
    try:
        return pyarrow.concat_tables(tables)
    except pyarrow.ArrowException as error:
        raise DataError(
            f"'{files[0].parent}': its Arrow files have different columns ({str(error)[:120]})",
            "write the data set again with save_to_disk",
        ) from error


def numbers(table: Any, column: str, where: str) -> Array:
    """A column of numbers, or of lists of them, as an array (n, …); ragged where flat lists differ in length.

    Raises:
        DataError: If a value is missing, is no number, or lists in lists differ in length.
    """
    import pyarrow
    from pyarrow import compute, types

    values = table.column(column).combine_chunks()
    shape = [len(values)]
    while True:
        if isinstance(values, pyarrow.ExtensionArray):
            values = values.storage
        if values.null_count:
            raise DataError(f"{where}: column '{column}': {values.null_count} values are missing", "fill them first")
        kind = values.type
        if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
            break
        lengths = compute.unique(compute.list_value_length(values)).to_pylist()
        if len(lengths) > 1 and len(shape) == 1 and not types.is_nested(kind.value_type):
            return ragged([np.asarray(row.values.to_numpy(zero_copy_only=False)) for row in values])
        if len(lengths) > 1:
            raise DataError(
                f"{where}: column '{column}': rows have {min(lengths)} to {max(lengths)} values",
                "pad them to one length before the data set is saved",
            )
        shape.append(lengths[0] if lengths else 0)
        values = values.flatten()
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise DataError(
            f"{where}: column '{column}' holds {kind}, expected numbers", "name another with --data-options columns=…"
        )
    array: Array = np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)
    return array
