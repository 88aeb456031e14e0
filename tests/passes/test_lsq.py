"""Learned step sizes: forward values, the paper's gradients, and the way back to lowering's quantisers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bitfront.lowering.quantiser import quantiser_u8
from bitfront.passes.lsq import SMALLEST_RATIO, LearnedStep, LsqWeight, TensorQuantiser, gradient_scale, quantise

Quantise = Callable[[Tensor, Tensor], Tensor]
LOW, HIGH = -4, 3
SHARING = 96


def right(values: Tensor, step: Tensor) -> Tensor:
    return quantise(values, step, LOW, HIGH, sharing=SHARING)


def scaled_gradient(step: Tensor, factor: float) -> Tensor:
    return step * factor + (step - step * factor).detach()


def wrong_sign(values: Tensor, step: Tensor) -> Tensor:
    return right(values, scaled_gradient(step, -1))


def without_gradient_scale(values: Tensor, step: Tensor) -> Tensor:
    return right(values, scaled_gradient(step, 1 / gradient_scale(SHARING, HIGH)))


def without_clip_term(values: Tensor, step: Tensor) -> Tensor:
    scale = scaled_gradient(step, gradient_scale(SHARING, HIGH))
    integers = values / scale + (torch.round(values / scale) - values / scale).detach()
    return integers * scale + (right(values, step) - integers * scale).detach()


def without_rounding_term(values: Tensor, step: Tensor) -> Tensor:
    scale = scaled_gradient(step, gradient_scale(SHARING, HIGH))
    integers = torch.clamp(values / scale, LOW, HIGH)
    return integers * scale + (right(values, step) - integers * scale).detach()


def sample() -> tuple[Tensor, Tensor, Tensor]:
    """Values (4, 24), many beyond the ends; a step a row; weights of the results in a sum."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(4, 24, generator=generator, dtype=torch.float64)
    step = torch.tensor([[0.1], [0.2], [0.3], [0.5]], dtype=torch.float64)
    return values, step, torch.randn(4, 24, generator=generator, dtype=torch.float64)


def gradients(function: Quantise) -> tuple[Tensor, Tensor]:
    values, step, weights = sample()
    values.requires_grad_()
    step.requires_grad_()
    found = torch.autograd.grad((function(values, step) * weights).sum(), (values, step))
    return found[0], found[1]


def check_closed_form(function: Quantise) -> None:
    """The oracle: eq. 3 and 5, number by number."""
    values, step, weights = sample()
    for_values, for_step = gradients(function)
    for row in range(4):
        expected = 0.0
        for column in range(24):
            ratio, weight = float(values[row, column] / step[row]), float(weights[row, column])
            inside = LOW < ratio < HIGH
            expected += weight * (round(ratio) - ratio if inside else LOW if ratio <= LOW else HIGH)
            assert float(for_values[row, column]) == pytest.approx(weight if inside else 0.0)
        assert float(for_step[row]) == pytest.approx(expected / (SHARING * HIGH) ** 0.5)


def check_differences(function: Quantise) -> None:
    """The oracle: central differences of s · (c + r), c = clip(v / s), what rounding adds, r = ⌊c⌉ − c, being held."""
    values, step, weights = sample()
    clipped = torch.clamp(values / step, LOW, HIGH)
    rest = torch.round(clipped) - clipped

    def total(s: Tensor) -> Tensor:
        return ((torch.clamp(values / s, LOW, HIGH) + rest) * s * weights).sum(dim=1, keepdim=True)

    epsilon = 1e-7
    expected = (total(step + epsilon) - total(step - epsilon)) / (2 * epsilon)
    torch.testing.assert_close(gradients(function)[1], expected * gradient_scale(SHARING, HIGH), rtol=1e-5, atol=1e-6)


def test_values_by_hand() -> None:
    """Nearest code, halves to even, ends kept."""
    values = torch.tensor([-9.0, -0.7, -0.25, 0.25, 0.6, 0.75, 9.0])
    expected = torch.tensor([-2.0, -0.5, 0.0, 0.0, 0.5, 1.0, 1.5])
    torch.testing.assert_close(quantise(values, torch.tensor(0.5), -4, 3, sharing=7), expected)


@pytest.mark.parametrize("check", [check_closed_form, check_differences])
def test_gradients(check: Callable[[Quantise], None]) -> None:
    """Gradients are the paper's."""
    check(right)


@pytest.mark.parametrize("check", [check_closed_form, check_differences])
@pytest.mark.parametrize("planted", [wrong_sign, without_gradient_scale, without_clip_term, without_rounding_term])
def test_planted_bugs_are_seen(check: Callable[[Quantise], None], planted: Quantise) -> None:
    """Each oracle fails for a wrong sign and for each missing term."""
    values, step, _ = sample()
    torch.testing.assert_close(planted(values, step), right(values, step))
    with pytest.raises(AssertionError):
        check(planted)


def test_learning_finds_a_better_step() -> None:
    """Descending the squared error from a step twice too large ends near the best step."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2000, generator=generator)

    def error(step: Tensor) -> Tensor:
        return ((quantise(values, step, LOW, HIGH, sharing=1) - values) ** 2).mean()

    best = min(float(error(torch.tensor(step))) for step in np.linspace(0.2, 1.5, 100))
    learned = LearnedStep(torch.tensor(1.2))
    optimiser = torch.optim.Adam(learned.parameters(), lr=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        error(learned()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(error(learned()).detach()) <= 1.02 * best


def test_a_step_stays_positive() -> None:
    """However far the optimiser goes, a step keeps a share of its start."""
    step = LearnedStep(torch.tensor([2.0, 4.0]))
    with torch.no_grad():
        step.ratio.fill_(-3)
    torch.testing.assert_close(step(), torch.tensor([2.0, 4.0]) * SMALLEST_RATIO)


def test_scales_heed_their_limit() -> None:
    """A weight's scale does not fall below what its bias needs."""
    weight = LsqWeight(torch.tensor([[0.5], [0.5]]), -8, 7, torch.tensor([[0.4], [0.0001]]))
    with torch.no_grad():
        weight.step.ratio.fill_(0.5)
    torch.testing.assert_close(weight.scales(), torch.tensor([[0.4], [0.25]]))


@given(step=st.floats(2.0**-20, 2.0**13, width=32), zero_point=st.integers(0, 255))
def test_lowering_finds_the_quantiser_again(step: float, zero_point: int) -> None:
    """The range of a learned U8 quantiser gives its scale and zero point back, to the bit."""
    found = quantiser_u8(*TensorQuantiser(step, zero_point, 0, 255).range())
    assert (found.scale, found.zero_point) == (step, zero_point)


def test_a_signed_quantiser_is_symmetric() -> None:
    """With zero point 0, a signed byte's range is −127 to 127 steps."""
    assert TensorQuantiser(0.5, 0, -128, 127).range() == (-63.5, 63.5)
