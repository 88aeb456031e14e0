"""Peak memory and time of ``search inspect`` on generated networks of given size.

    python -m bitfront.experiments.memory_study --megabytes 100 437 1000
    python -m bitfront.experiments.memory_study --megabytes 437 3000 --external

An encoder is generated: a table of 30,522 × 768 and feed-forward blocks of 768 → 3,072 → 768, as many as the size asks
for. Each is inspected in a process of its own, whose peak resident memory the system tells; pages of the mapped file
that were touched count in it, though they can be dropped at any time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from bitfront.core.temporary import temporary_folder
from bitfront.search.console.tables import plain_table

COLUMNS = ("network", "file", "peak memory", "× file", "time")
WIDTH, INNER, VOCABULARY = 768, 3072, 30_522
_BLOCK_BYTES = 4 * (2 * WIDTH * INNER + INNER + WIDTH)
_TABLE_BYTES = 4 * WIDTH * VOCABULARY


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 437], help="sizes of the networks")
    parser.add_argument("--external", action="store_true", help="weights in a file beside the model")
    options = parser.parse_args(argv)
    rows = []
    for megabytes in options.megabytes:
        with temporary_folder() as folder:
            path = folder / "encoder.onnx"
            blocks = max(1, round((megabytes * 10**6 - _TABLE_BYTES) / _BLOCK_BYTES))
            write_encoder(path, blocks, external=options.external)
            size = sum(file.stat().st_size for file in folder.iterdir())
            peak_bytes, seconds = inspect(path)
            name = f"table and {blocks} blocks"
            sizes = (f"{size / 1e6:.0f} MB", f"{peak_bytes / 1e6:.0f} MB", f"{peak_bytes / size:.2f}")
            rows.append((name, *sizes, f"{seconds:.1f} s"))
    sys.stdout.write(plain_table(COLUMNS, rows) + "\n")
    return 0


def write_encoder(path: Path, blocks: int, *, external: bool) -> None:
    """Write an encoder of ``blocks`` feed-forward blocks, its weights in the file or in one beside it.

    Args:
        path: The model's file.
        blocks: Their number.
        external: Needed beyond 2 GB.
    """
    generator = np.random.default_rng(0)
    tensors = [_tensor("table", (VOCABULARY, WIDTH))]
    nodes = [helper.make_node("Gather", ["table", "ids"], ["x0"], name="embedding")]
    for block in range(blocks):
        up, down = f"up{block}", f"down{block}"
        tensors += [_tensor(up, (WIDTH, INNER)), _tensor(down, (INNER, WIDTH))]
        tensors += [_tensor(f"{up}_bias", (INNER,)), _tensor(f"{down}_bias", (WIDTH,))]
        nodes += [
            helper.make_node("MatMul", [f"x{block}", up], [f"u{block}"], name=up),
            helper.make_node("Add", [f"u{block}", f"{up}_bias"], [f"ub{block}"], name=f"{up}_add"),
            helper.make_node("Relu", [f"ub{block}"], [f"r{block}"], name=f"relu{block}"),
            helper.make_node("MatMul", [f"r{block}", down], [f"d{block}"], name=down),
            helper.make_node("Add", [f"d{block}", f"{down}_bias"], [f"db{block}"], name=f"{down}_add"),
            helper.make_node("Add", [f"x{block}", f"db{block}"], [f"x{block + 1}"], name=f"sum{block}"),
        ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "sequence"])],
        [helper.make_tensor_value_info(f"x{blocks}", TensorProto.FLOAT, ["n", "sequence", WIDTH])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    weights = path.with_suffix(".data").open("wb") if external else None
    for tensor in model.graph.initializer:
        shape = tuple(tensor.dims)
        data = generator.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[0]))
        if weights is None:
            tensor.raw_data = data.tobytes()
            continue
        place = {"location": path.with_suffix(".data").name, "offset": weights.tell(), "length": data.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        tensor.data_location = TensorProto.EXTERNAL
        weights.write(data.tobytes())
    if weights is not None:
        weights.close()
    onnx.save(model, path)


def inspect(path: Path) -> tuple[int, float]:
    """Peak resident bytes and seconds of ``search inspect`` on a model, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # whose only child the command is
        return pool.apply(_inspect, (path,))


def _inspect(path: Path) -> tuple[int, float]:
    start = time.perf_counter()
    command = [sys.executable, "-m", "bitfront.search", "inspect", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, seconds


def _tensor(name: str, shape: tuple[int, ...]) -> TensorProto:
    return TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)


if __name__ == "__main__":
    sys.exit(main())
