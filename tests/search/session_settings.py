"""A dialect whose quantised models must run with a setting of ONNX Runtime's session."""

from __future__ import annotations

from collections.abc import Mapping

from bitfront.lowering.dialect import LoweringRequest
from bitfront.lowering.dialects.ort_cpu import OrtCpuDialect

NAME = "tests.search.session_settings:UnfusedDialect"
# Leaves Q/DQ as they are written: what runs shows that the session got it.
SETTINGS = {"session.disable_quant_qdq": "1"}


class UnfusedDialect(OrtCpuDialect):
    """As for ONNX Runtime's processor provider, with integers computed as Q/DQ say."""

    name = NAME

    def session_settings(self, request: LoweringRequest) -> Mapping[str, str]:
        """None for networks without integers."""
        return SETTINGS if any(scheme.precision.is_integer for scheme in request.schemes.values()) else {}
