import pytest
import torch

from nnunet_dml.losses import jaccard_metric_loss, lovasz_softmax_loss, one_hot


def case(shape=(2, 3, 4, 5)):
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]))
    return torch.randn(shape).double().softmax(1), one_hot(labels, shape[1]).double()


def test_by_hand():
    # errors 0.25 (positive), 0.5, 0.1 (negatives); after each: J = 1 − 1/2, 1 − 0/2, 1 − 0/3
    x, y = torch.tensor([[[0.75, 0.5, 0.1]]]), torch.tensor([[[1.0, 0.0, 0.0]]])
    assert lovasz_softmax_loss(x, y).item() == pytest.approx(0.5 * 0.5 + 0.25 * 0.5)
    # nothing positive: the greatest prediction, or nothing where absent classes are left out
    empty = torch.zeros_like(y)
    assert lovasz_softmax_loss(x, empty).item() == pytest.approx(0.75)
    assert lovasz_softmax_loss(x, empty, active="present").item() == 0


@pytest.mark.parametrize("reduction", ["batch", "image", "class"])
def test_jaccard_of_hard_predictions(reduction):
    x, y = case()[1], case()[1]
    expected = jaccard_metric_loss(x, y, reduction=reduction, smooth=0.0)
    torch.testing.assert_close(lovasz_softmax_loss(x, y, reduction=reduction), expected)


def test_convex_along_a_line():
    (x, y), z = case(), case()[0]
    middle = lovasz_softmax_loss((x + z) / 2, y)
    assert middle <= (lovasz_softmax_loss(x, y) + lovasz_softmax_loss(z, y)) / 2


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 2, 3, 2, 4)])
@pytest.mark.parametrize("reduction", ["batch", "image"])
def test_gradient(shape, reduction):
    x, y = case(shape)
    x.requires_grad_()
    mask = torch.rand(shape[0], 1, *shape[2:]) > 0.3
    for m in (None, mask):
        for log in (False, True):
            assert torch.autograd.gradcheck(
                lambda p, m=m, log=log: lovasz_softmax_loss(p, y, mask=m, reduction=reduction, log=log), (x,)
            )


def test_ignored_voxels_have_no_effect():
    """Nor on the gradient at voxels without an error, which come last among the valid ones."""
    x, y = case((2, 3, 10))
    x[0, :, 1] = y[0, :, 1]
    mask = (torch.arange(10) < 6).expand(2, 1, 10)
    part = x[..., :6].clone().requires_grad_()
    expected = lovasz_softmax_loss(part, y[..., :6])
    expected.backward()
    x[..., 6:], y[..., 6:] = torch.nan, torch.nan
    x.requires_grad_()
    value = lovasz_softmax_loss(x, y, mask=mask)
    value.backward()
    torch.testing.assert_close(value, expected)
    assert x.grad is not None
    torch.testing.assert_close(x.grad[..., :6], part.grad)
    assert (x.grad[..., 6:] == 0).all()
    assert lovasz_softmax_loss(x, y, mask=torch.zeros(2, 1, 10)).item() == 0


def test_half_precision():
    x, y = case()
    half = lovasz_softmax_loss(x.bfloat16(), y.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, lovasz_softmax_loss(x.bfloat16().float(), y.float()))
