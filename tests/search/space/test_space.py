"""Which schemes a search may decide between."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.distributions import CategoricalDistribution

from bitfront.core import FP16, FP32, ConfigError, Precision, Scheme
from bitfront.lowering.compute_type import ComputeType
from bitfront.search.space.space import ActivationType, GroupSpace, Space, build_space
from tests.search.proposals.spaces import (
    INT4,
    INT4_BLOCK,
    INT4_WEIGHTS,
    INT8,
    INT8_NEAREST,
    chain,
    quantisable,
    size_of,
    table,
)

ALL = tuple(Precision)


def on_ort(scheme: Scheme) -> ComputeType:
    """As on ONNX Runtime's CPU provider."""
    if scheme.weights.group_size is not None:
        return ComputeType.WEIGHT_ONLY
    return ComputeType.INT8 if scheme.activations.is_static else ComputeType.FP32


def _half(scheme: Scheme) -> ComputeType:
    """As on a runtime with 16-bit arithmetic."""
    return ComputeType.FP16 if scheme == FP16 else on_ort(scheme)


def _build(
    losses: dict[Scheme, float],
    precisions: tuple[Precision, ...] = ALL,
    compute_type_of: Callable[[Scheme], ComputeType] = on_ort,
) -> Space:
    offered, scores = {"a": (FP32, *losses)}, table({"a": {FP32: 0.0, **losses}}, {})
    return build_space(quantisable(offered), scores, precisions, size_of, compute_type_of)


def test_arithmetic_is_the_dialects() -> None:
    """Each scheme has the arithmetic that the dialect names, whichever that is."""
    offered = {FP16: 0.0, INT8: 0.1, INT4_BLOCK: 0.2}
    (group,) = _build(offered).groups
    assert dict(zip(group.schemes, group.compute_types, strict=True)) == {
        FP32: ComputeType.FP32, FP16: ComputeType.FP32, INT8: ComputeType.INT8, INT4_BLOCK: ComputeType.WEIGHT_ONLY,
    }  # fmt: skip
    (group,) = _build(offered, compute_type_of=_half).groups
    assert group.compute_types == (ComputeType.FP32, ComputeType.FP16, ComputeType.INT8, ComputeType.WEIGHT_ONLY)


def test_domains_are_what_is_converted_between() -> None:
    """Blocks and what quantises its input itself have floating activations; all else has tensors of its own type."""
    assert {kind: ActivationType.of(kind) for kind in ComputeType} == {
        ComputeType.FP32: ActivationType.FLOAT, ComputeType.FP16: ActivationType.HALF,
        ComputeType.INT8: ActivationType.INTEGER, ComputeType.WEIGHT_ONLY: ActivationType.FLOAT,
        ComputeType.DYNAMIC_INT8: ActivationType.FLOAT,
    }  # fmt: skip


def test_half_is_no_storage_scheme() -> None:
    """Where FP16 computes in half, weight-only INT4 in float does not drive it out: it may be faster."""
    offered = {FP16: 0.1, INT4_WEIGHTS: 0.05}
    assert _build(offered).groups[0].schemes[_build(offered).groups[0].proposed[-1]] == INT4_WEIGHTS
    assert len(_build(offered).groups[0].proposed) == 2
    assert len(_build(offered, compute_type_of=_half).groups[0].proposed) == 3


def test_better_rounding_wins() -> None:
    """Of two schemes that differ in rounding alone the lower loss stays, and the other is listed with the reason."""
    space = _build({INT8_NEAREST: 0.2, INT8: 0.1})
    assert space.groups[0].schemes == (FP32, INT8)
    assert [(d.scheme, d.reason.startswith("dominated by int8:mse")) for d in space.dropped] == [(INT8_NEAREST, True)]


def test_equal_schemes_keep_the_first() -> None:
    """Equal loss and size leave exactly one scheme."""
    assert _build({INT8_NEAREST: 0.1, INT8: 0.1}).groups[0].schemes == (FP32, INT8_NEAREST)


def test_domination_is_within_an_arithmetic() -> None:
    """A smaller choice of no more loss drives out its own kind alone: others may be faster."""
    worse_weights = Scheme.parse("int8:nearest:weight-only")
    space = _build({INT8: 0.1, INT4: 0.3, worse_weights: 0.05, INT4_WEIGHTS: 0.04, INT4_BLOCK: 0.5})
    assert space.groups[0].schemes == (FP32, INT8, INT4, INT4_WEIGHTS, INT4_BLOCK)
    assert [d.scheme for d in space.dropped] == [worse_weights]


def test_baselines_keep_their_scheme() -> None:
    """A dominated scheme stays for the uniform baseline that needs it, and is never proposed."""
    space = _build({INT8: 0.1, INT4: 0.1})
    assert space.uniform(Precision.INT8) == {"a": INT8}
    assert [space.groups[0].schemes[i] for i in space.groups[0].proposed] == [FP32, INT4]
    assert space.cardinality == 2


def test_fp32_stays_even_when_fp16_is_free() -> None:
    """FP32 is the reference and cannot be dominated."""
    space = _build({FP16: 0.0})
    assert space.groups[0].schemes == (FP32, FP16)
    assert space.groups[0].proposed == (0, 1)


def test_table_and_precisions_restrict() -> None:
    """Schemes of other precisions, dropped by the table or unknown to it, leave with their reasons."""
    offered = {"a": (FP32, FP16, INT8, INT4, INT4_BLOCK)}
    rows = {"a": {FP32: 0.0, FP16: 0.0, INT8: 0.1}}
    space = build_space(
        quantisable(offered),
        table(rows, {("a", INT4): "NaN outputs"}),
        (Precision.INT8, Precision.INT4),
        size_of,
        on_ort,
    )
    assert space.groups[0].schemes == (FP32, INT8)
    assert {d.scheme.text: d.reason for d in space.dropped} == {
        "fp16": "fp16 is not allowed",
        "int4:gptq": "NaN outputs",
        "int4:mse:block32": "its loss is nan",
    }


def test_sizes_add_up_over_a_groups_layers() -> None:
    """A group's bytes are its layers' bytes; edges lose loops and repetitions."""
    offered = {"a+1": (FP32, INT8), "b": (FP32, INT8)}
    losses = {name: {FP32: 0.0, INT8: 0.1} for name in offered}
    space = build_space(quantisable(offered, ((0, 1), (0, 0), (0, 1))), table(losses, {}), ALL, size_of, on_ort)
    assert space.groups[0].size_bytes == (2 * 2304, 2 * 576)
    assert space.edges == ((0, 1),)
    assert space.describe(space.uniform(Precision.INT8)) == "int8:mse ×3"


def test_uniform_falls_back_to_the_nearest_higher_precision() -> None:
    """A group without the precision takes the next higher one, never a lower one."""
    offered = {"a": (FP32, FP16, INT8, INT4), "b": (FP32, INT8), "c": (FP32, FP16, INT4_BLOCK)}
    losses = {name: dict.fromkeys(schemes, 0.0) | {INT8: 0.1, INT4: 0.2} for name, schemes in offered.items()}
    space = build_space(quantisable(offered), table(losses, {}), ALL, size_of, on_ort)
    assert space.uniform(Precision.INT4) == {"a": INT4, "b": INT8, "c": INT4_BLOCK}
    assert space.uniform(Precision.INT8) == {"a": INT8, "b": INT8, "c": FP16}
    assert space.uniform(Precision.FP16) == {"a": FP16, "b": FP32, "c": FP16}
    assert [name for name, _ in space.baselines()] == ["fp32", "fp16", "int8", "int4"]


def test_baselines_do_not_repeat() -> None:
    """A precision that changes nothing is no baseline of its own."""
    assert [name for name, _ in _build({INT8: 0.1}).baselines()] == ["fp32", "int8"]


def test_lead_prefers_integer_arithmetic() -> None:
    """Uniform INT4 means integer arithmetic where that is offered, whatever the losses."""
    space = _build({INT4_WEIGHTS: 0.01, INT4_BLOCK: 0.02, INT4: 0.3})
    assert space.uniform(Precision.INT4) == {"a": INT4}


def test_params_round_trip() -> None:
    """Assignment → Optuna params → assignment is the identity, and the params are in the distributions."""
    space = chain(5)
    for _, assignment in space.baselines():
        params = space.to_params(assignment)
        assert space.from_params(params) == assignment
        assert space.decode(space.encode(assignment)) == assignment
        for name, distribution in space.distributions().items():
            assert isinstance(distribution, CategoricalDistribution)
            assert params[name] in distribution.choices


def test_foreign_assignment_is_refused() -> None:
    """An assignment of another space is named with what was expected."""
    space = chain(2)
    with pytest.raises(ConfigError, match=r"group 'g1': expected one of fp32, fp16.*got nothing"):
        space.encode({"g0": FP32})
    with pytest.raises(ConfigError, match=r"group 'g0': expected one of .*got int4:mse:block32"):
        space.encode({"g0": INT4_BLOCK, "g1": FP32})


def test_loss_and_size_add_up() -> None:
    """Loss and size are sums over groups, by hand."""
    groups = tuple(
        GroupSpace(
            name=name,
            schemes=(FP32, INT8),
            losses=(0.0, loss),
            size_bytes=(400, 100),
            compute_types=(ComputeType.FP32, ComputeType.INT8),
        )
        for name, loss in (("a", 0.25), ("b", 0.5))
    )
    space = Space(groups=groups, edges=())
    assert space.loss({"a": INT8, "b": INT8}) == 0.75
    assert space.size_bytes({"a": INT8, "b": FP32}) == 500
    assert space.describe({"a": INT8, "b": FP32}) == "fp32 ×1, int8:mse ×1"


F, INTEGER = ComputeType.FP32, ComputeType.INT8


@pytest.mark.parametrize(
    ("schemes", "losses", "sizes", "arithmetic", "message"),
    [
        ((INT8,), (0.0,), (1,), (INTEGER,), "expected fp32 as the first scheme"),
        ((FP32, INT8), (0.0,), (1, 1), (F, INTEGER), "differ in length"),
        ((FP32, INT8), (0.0, 0.1), (1, 1), (F,), "differ in length"),
        ((FP32,), (0.0,), (1,), (INTEGER,), "expected fp32 to compute in fp32, got integer"),
        ((FP32, INT8), (0.0, float("nan")), (1, 1), (F, INTEGER), "loss of int8:mse is nan"),
        ((FP32, INT8), (0.0, -1.0), (1, 1), (F, INTEGER), r"loss of int8:mse is -1\.0"),
    ],
    ids=["no fp32", "lengths", "arithmetic missing", "integer fp32", "nan", "negative"],
)
def test_malformed_groups_are_refused(
    schemes: tuple[Scheme, ...],
    losses: tuple[float, ...],
    sizes: tuple[int, ...],
    arithmetic: tuple[ComputeType, ...],
    message: str,
) -> None:
    """A group starts with FP32 in float, and has finite losses ≥ 0."""
    with pytest.raises(ValueError, match=message):
        GroupSpace(name="a", schemes=schemes, losses=losses, size_bytes=sizes, compute_types=arithmetic)
