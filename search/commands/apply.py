"""``search apply``: rebuild an artifact from a saved config and its network, byte for byte."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bitfront.core import (
    Artifact,
    ConfigError,
    ContentStore,
    LoweringError,
    PrecisionConfig,
    Recipe,
    UsageError,
)
from bitfront.core.artifact import save_artifact
from bitfront.search.arguments import arguments, pass_arguments, values
from bitfront.search.console.terminal import write_lines, write_message
from bitfront.search.run_folder import folder as run_folder

USAGE = """\
search apply CONFIG -o OUT [options]
                    (--model ONNX | --workload MODULE:ATTR)"""
DESCRIPTION = """\
Write the model that a config describes. With the network it was made for, the result equals the run's own model byte
for byte. Where weights were rounded on data (GPTQ), give the same calibration inputs, or leave the config in its run
folder, whose cache has the rounded weights. A config of a pruned or trained network finds it in its run folder's
networks/; without it, pruning and training are repeated from the workload's torch module and training inputs.

  search apply runs/net-1/configs/p07.json --model net.onnx -o deploy.onnx"""
EXIT_OK = 0


def build_parser() -> arguments.Parser:
    """The command's options."""
    parser = arguments.Parser("search apply", USAGE, DESCRIPTION)
    parser.add_argument("config", type=values.path, metavar="CONFIG", help="a file from a run's configs/ folder")
    arguments.add_source(parser, evaluation=False)
    group = parser.add_argument_group("Output")
    group.add_argument("-o", "--out", type=values.path, required=True, metavar="OUT", help="model file to write")
    group.add_argument(
        "--allow-new-weights",
        action="store_true",
        help="accept a fine-tuned checkpoint of the same architecture (default: off)",
    )
    group.add_argument(
        "--dialect",
        metavar="MODULE:ATTR",
        help="the config's dialect, where it is another package's: its code is run (default: this program's own alone)",
    )
    group = parser.add_argument_group("Pruned and trained networks")
    group.add_argument(
        "--network",
        type=values.path,
        metavar="ONNX",
        help="the model variant (default: the one in the run folder's networks/)",
    )
    group.add_argument(
        "--repeat-training", action="store_true", help="prune and train again, even if it is at hand (default: off)"
    )
    group.add_argument(
        "--passes",
        type=pass_arguments.passes,
        default=(),
        metavar="MODULE:ATTR",
        help="passes of the recipe that are other packages': their code is run (default: this program's own alone)",
    )
    return parser


def run(argv: Sequence[str]) -> int:
    """Rebuild the model.

    Raises:
        EngineError: For everything the person can mend.
    """
    args = arguments.parse(build_parser(), argv)
    if args.model is None and args.workload is None:
        raise UsageError(
            "expected the config's network, --model or --workload; got neither", "see 'search apply --help'"
        )
    if args.network is not None and args.repeat_training:
        raise UsageError("--network cannot be combined with --repeat-training", "leave one of them out")
    if args.out.is_dir():
        raise UsageError(f"--out: '{args.out}' is a folder, expected a model file to write", "name a file in it")
    run_folder.check_writable(args.out.absolute().parent)
    config = PrecisionConfig.load(args.config)

    from bitfront.core.formatting import size

    try:
        artifact = _given(config, args) if config.recipe is None else _made(config, config.recipe, args)
    except (ConfigError, LoweringError) as error:
        raise type(error)(f"'{args.config}': {error.message}", error.hint) from error
    save_artifact(artifact, args.out)
    write_lines(sys.stdout, f"{args.out}: {size(artifact.size_bytes)}, {len(config.layers)} layers")
    return EXIT_OK


def _given(config: PrecisionConfig, args: argparse.Namespace) -> Artifact:
    from bitfront.lowering.apply import apply_config
    from bitfront.search.inputs.loading import load_network

    for option, asked in (("--network", args.network is not None), ("--repeat-training", args.repeat_training)):
        if asked:
            raise UsageError(f"{option}: the config is of the given network, which no pass has changed", "leave it out")
    source = arguments.source_of(args)
    reference, calibration = load_network(source, config)
    for notice in source.notices:
        _warn(notice)
    return apply_config(
        config,
        reference,
        calibration=calibration,
        store=_cache_of(args.config),
        allow_new_weights=args.allow_new_weights,
        dialect=args.dialect,
    )


def _made(config: PrecisionConfig, recipe: Recipe, args: argparse.Namespace) -> Artifact:
    from bitfront.search.variants.apply_recipe import apply_recipe

    return apply_recipe(
        config,
        recipe,
        arguments.source_of(args),
        run=_run_of(args.config),
        store=_cache_of(args.config),
        network=args.network,
        repeat=args.repeat_training,
        passes=args.passes,
        allow_new_weights=args.allow_new_weights,
        dialect=args.dialect,
        warn=_warn,
    )


def _warn(text: str) -> None:
    write_message(sys.stderr, "warning", text)


def _run_of(config: Path) -> Path:
    return config.resolve().parent.parent


def _cache_of(config: Path) -> ContentStore:
    """The cache of the run that ``config`` lies in; one in memory if it lies in none."""
    cache = _run_of(config) / "cache"
    return ContentStore(cache if cache.is_dir() else None)
