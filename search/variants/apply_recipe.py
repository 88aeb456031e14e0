"""A config of a model variant, applied: with the graph that the run kept, or by following its recipe once more.

Following it takes the workload's torch module and training inputs; trainings that lie in the run's cache are taken from
there. On another machine a repeated training may come to other weights: then ranges and rounding are found anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bitfront.core import Artifact, ConfigError, ContentStore, PrecisionConfig, Recipe, UsageError
from bitfront.lowering.apply import apply_config
from bitfront.lowering.dialects.registry import dialect_of_config
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.inputs.loading import load_network
from bitfront.search.inputs.passes import check_module, read_pass_inputs
from bitfront.search.inputs.source import Source
from bitfront.search.inputs.workloads import DEFAULT_WORKLOAD, call_user_code, load_workload
from bitfront.search.passes.base import Pass, pass_context
from bitfront.search.passes.trainings import TrainingBudget, Trainings
from bitfront.search.variants.pipeline import PassPipeline, Variant
from bitfront.search.variants.variant_files import load_variant_file, variant_file


def apply_recipe(
    config: PrecisionConfig,
    recipe: Recipe,
    source: Source,
    *,
    run: Path,
    store: ContentStore,
    network: Path | None,
    repeat: bool,
    passes: Sequence[Pass],
    allow_new_weights: bool,
    dialect: str | None,
    warn: Callable[[str], None],
) -> Artifact:
    """Write the artifact of a model variant.

    Args:
        config: The config.
        recipe: Its recipe.
        source: The given network, and what training needs.
        run: The run folder that the config may lie in.
        store: The run's cache.
        network: The variant's graph; None looks for it in the run folder.
        repeat: Follow the recipe even where the graph is at hand.
        passes: Of other packages, that the person named: the recipe's steps may be theirs.
        allow_new_weights: Accept other weights of the given network's architecture, and follow the recipe on them.
        dialect: The dialect that the person named; None takes the config's, if it is one of this program's.
        warn: Told what will not be as it was in the run.

    Raises:
        EngineError: For everything the person can mend.
    """
    writer = dialect_of_config(config.dialect, dialect)
    given, calibration = load_network(source, config)
    _check_given(config, given, allow_new_weights)
    path = network or run / variant_file(recipe)
    if network is not None or (path.is_file() and not repeat and given.fingerprint == config.model):
        reference = load_variant_file(path, recipe, given.interpreter)
        return apply_config(
            config, reference, calibration=calibration, store=store, allow_new_weights=False, dialect=dialect
        )
    lowerer = Lowerer(given, writer, calibration, config.calibration, store)
    made = _follow(recipe, source, lowerer, passes, store, warn)
    if made.lowerer.reference.fingerprint == recipe.network:
        reference = made.lowerer.reference
        return apply_config(
            config, reference, calibration=calibration, store=store, allow_new_weights=False, dialect=dialect
        )
    warn("the recipe gave other weights than in the run, so ranges and rounding are found anew")
    return made.lowerer.lower(config.layers)


def _follow(
    recipe: Recipe,
    source: Source,
    given: Lowerer,
    passes: Sequence[Pass],
    store: ContentStore,
    warn: Callable[[str], None],
) -> Variant:
    if source.model is not None:
        raise UsageError(
            f"the config is of a network that passes made from '{source.model}', and its graph "
            f"{variant_file(recipe)} is not at hand: to make it again takes the torch module",
            "give the graph with --network, or the run's own --workload",
        )
    name = source.workload or DEFAULT_WORKLOAD
    label = f"workload '{name}'"
    workload = load_workload(name, source.data)
    module = check_module(call_user_code(f"{label}: model", lambda: workload.model), label)
    found = read_pass_inputs(workload, label, given.reference, teacher=module, classes=None)
    context = pass_context(
        module,
        given.reference.fingerprint,
        found.training,
        students=found.students,
        augment=found.augment,
        trainings=Trainings(store, TrainingBudget(), lambda _: None),
    )
    if context.data_digest != recipe.data:
        warn("the workload's training inputs are not those of the run")
    return PassPipeline(context, given, str(workload.name), passes).make(recipe.steps)


def _check_given(config: PrecisionConfig, given: ReferenceModel, allow_new_weights: bool) -> None:
    if given.architecture != config.architecture:
        raise ConfigError(
            f"the config's network was made from another network than '{given.source}'",
            "give the network the run was made with",
        )
    if given.fingerprint != config.model and not allow_new_weights:
        raise ConfigError(
            f"the config's network was made from other weights than those of '{given.source}'; the layers are the same",
            "add --allow-new-weights to follow its recipe on this checkpoint",
        )
