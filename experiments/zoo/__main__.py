"""Study of the zoo: what becomes of every network of it when it is searched.

    scripts/zoo-env
    python -m bitfront.experiments.zoo
    python -m bitfront.experiments.zoo silero ocr-read --out runs/zoo

A row for each version of each network: as given, uniform INT8, what the search recommends, and what ONNX Runtime's
``quantize_static`` and ``quantize_dynamic`` make of the same file. A cell in which one of the two is better within the
same loss is marked as lost. A network whose search fails is a row as well; the exit status is 1 where one ended in a
traceback, did not end or could not be made.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bitfront.core import EngineError
from bitfront.experiments.zoo.collection import ZOO
from bitfront.experiments.zoo.examine import Examined, Settings, examine
from bitfront.experiments.zoo.table import COLUMNS, as_csv, as_markdown, rows

SITE = Path(__file__).resolve().parents[2] / ".cache" / "zoo"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks (default: all)")
    parser.add_argument("--list", action="store_true", help="print the networks and end")
    parser.add_argument("--site", type=Path, default=Path(os.environ.get("BITFRONT_ZOO") or SITE))
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"), help="folder of files and tables")
    parser.add_argument("--trials", type=int, default=Settings().trials, help="candidates of each search")
    parser.add_argument("--max-drop", type=float, default=Settings().max_drop, help="loss of fidelity allowed")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in ZOO]
    if unknown:
        sys.stderr.write(f"no network '{unknown[0]}'; there are: {', '.join(ZOO)}\n")
        return 2
    if options.list:
        sys.stdout.writelines(f"{n.name:<18} {n.origin:<36} {n.kind}\n" for n in ZOO.values())
        return 0
    settings = replace(Settings(), trials=options.trials, max_drop=options.max_drop)
    done: list[Examined] = []
    failed = False
    for name in options.names or ZOO:
        sys.stderr.write(f"{name} …\n")
        try:
            found = examine(ZOO[name], options.site, options.out / name, settings)
        except EngineError as error:
            sys.stderr.write(f"{error}\n")
            failed = True
            continue
        except Exception:  # noqa: BLE001 - the other networks go on
            traceback.print_exc()
            failed = True
            continue
        done.append(found)
        failed |= found.exit_code not in (0, 2, 3) or any("traceback" in problem for problem in found.problems)
        table = rows(done, settings.max_drop)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "zoo.csv").write_text(as_csv(table), encoding="utf-8")
        (options.out / "zoo.md").write_text(as_markdown(table), encoding="utf-8")
        for row in rows([found], settings.max_drop):
            cells = (f"{k} {v}" for k, v in zip(COLUMNS[1:], row[1:], strict=True) if v)
            sys.stdout.write(f"{row[0]}: {', '.join(cells)}\n")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
