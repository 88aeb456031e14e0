"""The interface of what writes schemes as artifacts for scoring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from bitfront.core import Artifact, Scheme
from bitfront.lowering.layers import QuantisableLayers
from bitfront.lowering.parts import NetworkPart
from bitfront.lowering.reference import ReferenceModel


class SchemeLowerer(Protocol):
    """Writes schemes as an artifact, as ``lowering.lowerer.Lowerer`` does."""

    @property
    def quantisable(self) -> QuantisableLayers:
        """The network's layers and groups, with the schemes that each may take."""
        ...

    def lower(self, schemes: Mapping[str, Scheme]) -> Artifact:
        """The artifact for layer name → scheme.

        Raises:
            LoweringError: If a layer may not take its scheme.
        """
        ...


class PartLowerer(SchemeLowerer, Protocol):
    """A ``SchemeLowerer`` that writes the layers of one group alone, too."""

    @property
    def reference(self) -> ReferenceModel:
        """The network."""
        ...

    @property
    def parts(self) -> Mapping[str, NetworkPart]:
        """Group name → its part, for every group that has one."""
        ...

    def lower_part(self, part: NetworkPart, scheme: Scheme) -> Artifact:
        """The artifact of a part whose layers all take one scheme.

        Raises:
            LoweringError: If a layer may not take it.
        """
        ...
