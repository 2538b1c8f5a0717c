import re

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_dml.losses import (
    CrossEntropyOverlapLoss,
    DeepSupervisionLoss,
    average_down,
    deep_supervision_weights,
)


def upstream(count, last):
    weights = np.array([1 / (2**i) for i in range(count)])
    weights[-1] = last
    return weights / weights.sum()


@pytest.mark.parametrize("count", [2, 3, 5, 7])
@pytest.mark.parametrize(("keep_last", "last"), [(False, 0), (True, 1e-6)])
def test_weights_are_those_of_nnunet(count, keep_last, last):
    np.testing.assert_allclose(
        deep_supervision_weights(count, keep_last=keep_last), upstream(count, last), rtol=1e-15
    )


@pytest.mark.parametrize("keep_last", [False, True])
def test_one_output_has_all_the_weight(keep_last):
    assert deep_supervision_weights(1, keep_last=keep_last) == (1.0,)


def test_no_output():
    with pytest.raises(ValueError, match="`num_outputs` to be at least 1, got 0"):
        deep_supervision_weights(0)


def test_average_down_by_hand():
    target = torch.tensor([[[[1.0, 0.0, 0.5, 0.5], [1.0, 1.0, 0.0, 0.0]]]])
    assert average_down(target, (1, 2)).tolist() == [[[[0.75, 0.25]]]]
    assert average_down(target, (2, 4)) is target


@pytest.mark.parametrize(
    ("full", "size"), [((8,), (4,)), ((8, 6), (4, 3)), ((8, 6, 4), (4, 3, 4)), ((7, 5), (3, 2))]
)
def test_average_down_keeps_sums(full, size):
    target = torch.rand(2, 3, *full).softmax(1)
    coarse = average_down(target, size)
    assert coarse.shape == (2, 3, *size)
    torch.testing.assert_close(coarse.sum(1), torch.ones(2, *size))
    if all(a % b == 0 for a, b in zip(full, size, strict=True)):
        torch.testing.assert_close(coarse.mean(), target.mean())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_average_down_half_precision(dtype):
    target = torch.rand(1, 2, 8, 8).to(dtype)
    torch.testing.assert_close(average_down(target, (4, 4)), average_down(target.float(), (4, 4)))


@pytest.mark.parametrize(
    ("target", "size", "error", "words"),
    [
        (torch.zeros(1, 1, 4, 4), (8, 4), ValueError, "Expected argument `size` at most (4, 4)"),
        (torch.zeros(1, 1, 4, 4), (2,), ValueError, "with 1 spatial axes (1 to 3), got (1, 1, 4, 4)"),
        (torch.zeros(1, 1, 4, 4), (0, 2), ValueError, "Expected argument `size`"),
        (
            torch.zeros(1, 1, 4, 4).long(),
            (2, 2),
            TypeError,
            "got torch.int64. For hard labels call `one_hot` first.",
        ),
    ],
)
def test_average_down_refuses(target, size, error, words):
    with pytest.raises(error, match=re.escape(words)):
        average_down(target, size)


class Record(nn.Module):
    """Keeps what it was called with; its value is the sum of the output."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, output, target, mask=None):
        self.calls.append((target, mask))
        return output.sum()


def outputs():
    return [torch.full((1, 2, 8 >> i, 8 >> i), float(i + 1)) for i in range(3)]


def test_weighted_sum_and_skipped_outputs():
    loss = Record()
    target = torch.rand(1, 2, 8, 8)
    value = DeepSupervisionLoss(loss, (0.75, 0.25, 0.0))(outputs(), target)
    assert value.item() == 0.75 * 128 + 0.25 * 2 * 32
    assert [t.shape[2] for t, _ in loss.calls] == [8, 4]
    assert loss.calls[0][0] is target
    torch.testing.assert_close(loss.calls[1][0], average_down(target, (4, 4)))
    assert all(mask is None for _, mask in loss.calls)


def test_ignored_voxels_do_not_dilute_the_coarse_target():
    loss = Record()
    target = (
        torch.tensor([1.0, torch.nan, torch.nan, torch.nan, 0.5, 0.0, 1.0, 1.0]).view(1, 1, 8).repeat(1, 2, 1)
    )
    mask = torch.tensor([1, 0, 0, 0, 1, 1, 1, 1]).view(1, 1, 8).bool()
    for kind in (mask, mask.float()):
        loss.calls.clear()
        DeepSupervisionLoss(loss, (0.0, 1.0))([torch.zeros(1, 2, 8), torch.zeros(1, 2, 4)], target, kind)
        coarse, valid = loss.calls[0]
        assert coarse[0, 0].tolist() == [1.0, 0.0, 0.25, 1.0]
        assert valid[0, 0].tolist() == [True, False, True, True]


def test_targets_per_output():
    loss = Record()
    targets = [torch.rand_like(output) for output in outputs()]
    masks = [torch.ones(1, 1, *output.shape[2:]) for output in outputs()]
    DeepSupervisionLoss(loss, (0.5, 0.5, 0.0), targets_per_output=True)(outputs(), targets, masks)
    assert [t is u and m is n for (t, m), u, n in zip(loss.calls, targets, masks, strict=False)] == [
        True,
        True,
    ]


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 2, 4, 8, 4)], ids=["2d", "3d"])
def test_with_the_training_loss(shape):
    loss = CrossEntropyOverlapLoss("dml")
    target = torch.randn(shape).softmax(1)
    logits = [torch.randn(*shape[:2], *(n >> i for n in shape[2:]), requires_grad=True) for i in range(3)]
    value = DeepSupervisionLoss(loss, deep_supervision_weights(3))(logits, target)
    expected = 2 / 3 * loss(logits[0], target) + 1 / 3 * loss(
        logits[1], average_down(target, logits[1].shape[2:])
    )
    torch.testing.assert_close(value, expected)
    value.backward()
    assert logits[1].grad is not None
    assert logits[2].grad is None


@pytest.mark.parametrize("weights", [(), (0.0, 0.0), (1.0, -0.5), (float("nan"), 1.0), (float("inf"),)])
def test_wrong_weights(weights):
    with pytest.raises(
        ValueError, match="Expected argument `weights` to be at least 0 and one of them above 0"
    ):
        DeepSupervisionLoss(Record(), weights)


def test_wrong_calls():
    full = torch.rand(1, 2, 8, 8)
    one = DeepSupervisionLoss(Record(), (0.5, 0.5, 0.0))
    each = DeepSupervisionLoss(Record(), (0.5, 0.5, 0.0), targets_per_output=True)
    with pytest.raises(TypeError, match="`targets` to be one tensor in full resolution, got list"):
        one(outputs(), outputs())
    with pytest.raises(TypeError, match="`mask` to be one tensor in full resolution, got list"):
        one(outputs(), full, outputs())
    with pytest.raises(TypeError, match="`targets` to be a sequence, one per output, got a tensor"):
        each(outputs(), full)
    with pytest.raises(TypeError, match="`mask` to be a sequence, one per output, got a tensor"):
        each(outputs(), outputs(), full)
    with pytest.raises(
        TypeError, match="`outputs` to be a sequence of tensors, one per weight, got one tensor"
    ):
        one(full, full)
    with pytest.raises(ValueError, match="`outputs` to be 3 tensors, one per weight, got 2"):
        one(outputs()[:2], full)
    with pytest.raises(ValueError, match="`targets` to be 3 tensors, one per weight, got 2"):
        each(outputs(), outputs()[:2])
