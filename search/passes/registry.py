"""Passes by name; one of another package goes by ``module:attribute``, where a person says so.

A file never does: its author's code would run on the machine of whoever opens it. So a recipe's step is applied only by
a pass of this table or by one that the person named.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from bitfront.core import ConfigError, RecipeStep, UsageError
from bitfront.core.naming import failed, load_attribute
from bitfront.core.recipe import pass_name
from bitfront.search.passes.base import ArtifactPass, Pass, StructuralPass, TrainingPass
from bitfront.search.passes.distill import DistillPass
from bitfront.search.passes.prune import PrunePass
from bitfront.search.passes.qat import QatPass
from bitfront.search.passes.sparse import SparsePass
from bitfront.search.passes.student import StudentPass

PASSES: tuple[type[Pass], ...] = (
    PrunePass,
    DistillPass,
    QatPass,
    SparsePass,
    StudentPass,
)
_KINDS = (StructuralPass, TrainingPass, ArtifactPass)


def selectable() -> dict[str, type[Pass]]:
    """Name → pass, those that ``--passes`` offers."""
    return {kind.name: kind for kind in PASSES if kind.selectable}


def get_pass(name: str) -> Pass:
    """A pass with default options, named by a person; not for names out of files.

    Args:
        name: One of the table's, or ``module:attribute`` of a pass or of a class or function that makes one.

    Raises:
        UsageError: If there is none.
    """
    known = selectable()
    if pass_name(name) in known:
        return known[pass_name(name)]()
    if ":" not in name:
        close = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"--passes: unknown pass '{name}', expected some of {','.join(known)}",
            f"did you mean '{close[0]}'?" if close else "see 'search --help'",
        )
    found = load_attribute(name, "--passes")
    try:
        made = found() if callable(found) else found
    except Exception as error:  # a person's own code may raise anything
        raise UsageError(failed(f"--passes: '{name}'", error), "run it alone in Python to see why") from error
    if not isinstance(made, _KINDS):
        raise UsageError(
            f"--passes: '{name}' is a {type(made).__name__}, expected a StructuralPass, TrainingPass or ArtifactPass",
            "see docs/adding-a-pass.md",
        )
    if getattr(made, "name", "") != name:
        raise UsageError(
            f"--passes: '{name}' calls itself '{getattr(made, 'name', '')}'",
            f'write name = "{name}" in the class: recipes find it by that name',
        )
    return made


def applicable(named: Iterable[Pass] = ()) -> dict[str, Pass]:
    """Name → pass, those that may apply a recipe's steps: the table's, and those that a person ``named``."""
    return {kind.name: kind() for kind in PASSES} | {found.name: found for found in named}


def pass_of(step: RecipeStep, passes: Mapping[str, Pass]) -> Pass:
    """The pass that applies a recipe's step.

    Raises:
        ConfigError: If it is none of ``passes``.
    """
    if step.name in passes:
        return passes[step.name]
    raise ConfigError(
        f"recipe: unknown pass '{step.name}'; known passes: {', '.join(passes)}",
        f"if you know and trust the package that it comes from, add --passes {step.name}"
        if ":" in step.name
        else "the recipe was edited, or is of another version of this program",
    )
