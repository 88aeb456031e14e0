"""``search apply``: rebuild an artifact from a saved config and its network, byte for byte."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from precision import ContentStore, PrecisionConfig, UsageError, write_bytes
from search.commands import arguments

USAGE = "search apply CONFIG (--model ONNX | --workload MODULE:ATTR) -o OUT [options]"
DESCRIPTION = """\
Write the model that a config describes. With the network it was made for, the result equals the run's own model byte
for byte. Where weights were rounded on data (GPTQ), give the same calibration inputs, or leave the config in its run
folder, whose cache has the rounded weights.

  search apply runs/net-1/configs/p07.json --model net.onnx -o deploy.onnx"""
EXIT_OK = 0


def build_parser() -> arguments.Parser:
    """The command's options."""
    parser = arguments.Parser("search apply", USAGE, DESCRIPTION)
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a file from a run's configs/ folder")
    arguments.add_source(parser, evaluation=False)
    group = parser.add_argument_group("Output")
    group.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="model file to write")
    group.add_argument(
        "--allow-new-weights",
        action="store_true",
        help="accept a fine-tuned checkpoint of the same architecture (default: off)",
    )
    return parser


def run(argv: Sequence[str]) -> int:
    """Rebuild the model.

    Raises:
        EngineError: For everything the person can mend.
    """
    args = arguments.parse(build_parser(), argv)
    if args.model is None and args.workload is None:
        raise UsageError("expected the config's network: --model or --workload", "see 'search apply --help'")
    config = PrecisionConfig.load(args.config)

    from lowering.apply import apply_config
    from report.wording import size
    from search.inputs import load_network

    reference, calibration = load_network(arguments.source_of(args))
    artifact = apply_config(
        config,
        reference,
        calibration=calibration,
        store=ContentStore(_cache_of(args.config)),
        allow_new_weights=args.allow_new_weights,
    )
    write_bytes(args.out, artifact)
    sys.stdout.write(f"{args.out}: {size(len(artifact))}, {len(config.layers)} layers\n")
    return EXIT_OK


def _cache_of(config: Path) -> Path | None:
    """The cache of the run that ``config`` lies in, if it lies in one."""
    cache = config.resolve().parent.parent / "cache"
    return cache if cache.is_dir() else None
