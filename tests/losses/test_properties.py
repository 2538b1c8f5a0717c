"""What the papers prove of these losses, tried on random soft sets."""

import math

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from nnunet_dml.losses import (
    compatible_tversky_loss,
    dice_semimetric_loss,
    jaccard_metric_loss,
    soft_dice_loss,
    soft_jaccard_loss,
)
from tests.losses.strategies import sets, weights
from tests.reference import losses as reference

RHO = (1 + math.sqrt(5)) / 2
ROUNDING = 1e-12
variants = st.sampled_from([1, 2])
metrics = st.sampled_from([dice_semimetric_loss, jaccard_metric_loss])


def value(loss, x, y, **options):
    return loss(x, y, smooth=0.0, **options).item()


@given(sets(1), metrics, variants)
def test_reflexivity(x, loss, variant):
    assert loss(x[0], x[0], variant=variant).item() == 0


@given(sets(2), metrics, variants)
def test_positivity_and_range(xy, loss, variant):
    x, y = xy
    assume(not torch.equal(x, y))
    assert 1e-4 < value(loss, x, y, variant=variant) <= 1


@given(sets(2), metrics, variants)
def test_symmetry(xy, loss, variant):
    x, y = xy
    assert value(loss, x, y, variant=variant) == pytest.approx(
        value(loss, y, x, variant=variant), abs=ROUNDING
    )


@given(sets(3), variants)
def test_jaccard_triangle_inequality(abc, variant):
    a, b, c = abc
    ab, bc, ac = (value(jaccard_metric_loss, p, q, variant=variant) for p, q in ((a, b), (b, c), (a, c)))
    assert ac <= ab + bc + ROUNDING


ONE_TWO = (torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]]))


@given(sets(3), variants)
@example(tuple(t.double() for t in ONE_TWO), 1)
def test_dice_relaxed_triangle_inequality(abc, variant):
    a, b, c = abc
    ab, bc, ac = (value(dice_semimetric_loss, p, q, variant=variant) for p, q in ((a, b), (b, c), (a, c)))
    assert ac <= RHO * (ab + bc) + ROUNDING


def test_dice_breaks_the_plain_triangle_inequality():
    """The paper's example, a ratio of 3/2: a semimetric, no metric."""
    a, b, c = ONE_TWO
    ab, bc, ac = (value(dice_semimetric_loss, p, q) for p, q in ((a, b), (b, c), (a, c)))
    assert (ab, bc, ac) == pytest.approx((1 / 3, 1 / 3, 1))


@given(sets(2), variants, st.sampled_from([0.0, 1e-5, 1.0]))
def test_dice_from_jaccard(xy, variant, smooth):
    x, y = xy
    dice = dice_semimetric_loss(x, y, variant=variant, smooth=smooth).item()
    jaccard = jaccard_metric_loss(x, y, variant=variant, smooth=smooth).item()
    assert dice == pytest.approx(jaccard / (2 - jaccard), abs=ROUNDING)


@given(st.one_of(sets(2, hard=(0,)), sets(2, hard=(1,))))
def test_theorem_2_all_forms_agree_where_one_side_is_hard(xy):
    x, y = xy
    dice = [value(dice_semimetric_loss, x, y, variant=v) for v in (1, 2)]
    assert dice == pytest.approx([value(soft_dice_loss, x, y)] * 2, abs=ROUNDING)
    jaccard = [value(jaccard_metric_loss, x, y, variant=v) for v in (1, 2)]
    assert jaccard == pytest.approx([value(soft_jaccard_loss, x, y)] * 2, abs=ROUNDING)


def test_theorem_2_they_differ_where_both_are_soft():
    x, y = torch.tensor([[[0.8]]]), torch.tensor([[[0.5]]])
    one, two, soft = (1 - 1.0 / 1.3, 1 - 0.8 / 1.1, 1 - 0.8 / 1.3)
    assert value(dice_semimetric_loss, x, y) == pytest.approx(one)
    assert value(dice_semimetric_loss, x, y, variant=2) == pytest.approx(two)
    assert value(soft_dice_loss, x, y) == pytest.approx(soft)


@given(sets(2))
def test_theorem_3_variant_1_is_less_or_equal(xy):
    x, y = xy
    for loss in (dice_semimetric_loss, jaccard_metric_loss):
        assert value(loss, x, y, variant=1) <= value(loss, x, y, variant=2) + ROUNDING


@given(sets(2), weights, weights, st.sampled_from([1.0, 4 / 3, 2.0]))
def test_theorem_5_tversky_reflexivity_and_positivity(xy, alpha, beta, gamma):
    x, y = xy
    assert compatible_tversky_loss(x, x, alpha=alpha, beta=beta, gamma=gamma).item() == 0
    if not torch.equal(x, y):
        assert value(compatible_tversky_loss, x, y, alpha=alpha, beta=beta, gamma=gamma) > 1e-5


@given(st.one_of(sets(2, hard=(0,)), sets(2, hard=(1,))), weights, weights)
def test_theorem_6_tversky_is_the_soft_tversky_where_one_side_is_hard(xy, alpha, beta):
    x, y = xy
    expected = reference.stl(x.numpy(), y.numpy(), alpha, beta)
    assert value(compatible_tversky_loss, x, y, alpha=alpha, beta=beta) == pytest.approx(
        expected, abs=ROUNDING
    )


def test_theorem_6_it_is_not_where_both_are_soft():
    half = torch.full((1, 1, 1), 0.5)
    assert value(compatible_tversky_loss, half, half, alpha=0.3, beta=0.7) == 0
    assert reference.stl(half.numpy(), half.numpy(), 0.3, 0.7) == pytest.approx(0.5)


@given(sets(2), weights, weights, st.sampled_from([1.0, 4 / 3, 2.0]), variants)
def test_equal_to_the_formulas_of_the_papers(xy, alpha, beta, gamma, variant):
    x, y = xy
    a, b = x.numpy(), y.numpy()
    tversky = value(compatible_tversky_loss, x, y, alpha=alpha, beta=beta, gamma=gamma)
    # the root of a difference of two close numbers: what is lost before it is larger after it
    assert tversky == pytest.approx(reference.ctl(a, b, alpha, beta, gamma), abs=1e-7)
    if (a + b).any() and ((a * b).any() or (a != b).any()):
        assert value(dice_semimetric_loss, x, y, variant=variant) == pytest.approx(
            reference.dml(a, b, variant)
        )
        assert value(jaccard_metric_loss, x, y, variant=variant) == pytest.approx(
            reference.jml(a, b, variant)
        )
    assert value(soft_dice_loss, x, y) == pytest.approx(reference.sdl(a, b))
    for norm in (1, 2):
        assert value(soft_jaccard_loss, x, y, norm=norm) == pytest.approx(reference.sjl(a, b, norm))


@given(sets(2), metrics, variants)
def test_no_descent_direction_at_the_target(xy, loss, variant):
    y, other = xy
    at_target = loss(y, y, variant=variant).item()
    towards = (other - y).clamp(-1, 1)
    for step in (1e-3, 1e-2, 1e-1):
        assert loss(y + step * towards, y, variant=variant).item() >= at_target


def test_the_soft_dice_loss_has_one():
    """The regression pair: at p = y = 0.5 ours is 0 and rises either way, SDL falls towards 1."""
    y = torch.full((1, 1, 8), 0.5)
    up, down = y + 0.1, y - 0.1
    assert soft_dice_loss(y, y).item() == pytest.approx(0.5, abs=1e-5)
    assert soft_dice_loss(up, y) < soft_dice_loss(y, y)
    assert dice_semimetric_loss(y, y).item() == 0
    assert dice_semimetric_loss(up, y) > 0.05
    assert dice_semimetric_loss(down, y) > 0.05
