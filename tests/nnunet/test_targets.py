"""From packed targets to fractions, by hand: labels, regions, ignored voxels, smoothing, deep supervision."""

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_dml.losses import CrossEntropyOverlapLoss, one_hot
from nnunet_dml.nnunet.option_groups import LabelOptions
from nnunet_dml.nnunet.targets import Smoothing, TargetLayout, TargetLoss

PLAIN = Smoothing(LabelOptions(), independent=False)


def layout(labels, order=None):
    return TargetLayout.of(LabelManager(labels, order))


def packed(*channels):
    return torch.tensor(channels, dtype=torch.float32)[None]


def test_what_a_data_set_needs():
    plain = layout({"background": 0, "a": 1, "b": 2})
    assert (plain.foreground, plain.soft_channels, plain.outputs, plain.regions) == (2, 2, 3, None)
    partial = layout({"background": 0, "a": 1, "ignore": 2})
    assert (partial.foreground, partial.soft_channels, partial.outputs) == (1, 2, 2)
    regions = layout({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2])
    assert (regions.foreground, regions.soft_channels, regions.outputs) == (2, 3, 2)
    assert regions.regions == ((1, 2), (2,))


def test_background_is_what_is_left():
    fractions, mask = layout({"background": 0, "a": 1, "b": 2}).soft(
        packed([0.5, 0, 1], [0.25, 0, 0], [1, 0, 1])
    )
    assert mask is None
    assert fractions[0].tolist() == [[0.25, 1, 0], [0.5, 0, 1], [0.25, 0, 0]]


def test_fractions_are_among_those_who_did_not_abstain():
    """A quarter of the voxel's mixture is ignored: the rest is scaled up; at three quarters it counts no more."""
    it = layout({"background": 0, "a": 1, "ignore": 2})
    fractions, mask = it.soft(packed([0.375, 0.25, 1, 0], [0.25, 0.75, 0, 1], [1, 2, 1, 2]))
    assert mask[0, 0].tolist() == [True, False, True, False]
    assert fractions[0, 1, [0, 2]].tolist() == [0.5, 1]
    assert fractions[0, 0, [0, 2]].tolist() == [0.5, 0]
    assert torch.isfinite(fractions).all()
    assert it.hard_of_packed(packed([0.0], [1.0], [2.0])).tolist() == [[[2]]]


def test_a_region_is_the_sum_of_its_labels():
    it = layout({"background": 0, "whole": [1, 2], "core": 2}, [1, 2])
    target = packed([0.25, 0, 0.5], [0.5, 1, 0.5], [1, 1, 1], [1, 1, 0])
    fractions, mask = it.soft(target)
    assert mask is None
    assert fractions[0].tolist() == [[0.75, 1, 1], [0.5, 1, 0.5]]
    assert torch.equal(it.hard_of_packed(target), target[:, 2:])


def test_regions_with_an_ignore_label():
    it = layout({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2])
    fractions, mask = it.soft(packed([0.25, 0], [0.25, 0], [0.5 - 1e-3, 1], [1, 0], [1, 0], [0, 1]))
    torch.testing.assert_close(fractions[0, :, 0], torch.tensor([0.998, 0.499]), atol=1e-3, rtol=0)
    assert mask.flatten().tolist() == [True, False]
    hard, mask = it.hard(torch.tensor([[[1, 0], [0, 0], [0, 1]]], dtype=torch.bool))
    assert hard.tolist() == [[[1, 0], [0, 0]]]
    assert mask.flatten().tolist() == [True, False]


def test_hard_labels():
    fractions, mask = layout({"background": 0, "a": 1, "ignore": 2}).hard(torch.tensor([[[0, 1, 2]]]))
    assert fractions[0].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert mask.flatten().tolist() == [True, True, False]


def test_smoothing_comes_before_averaging_down():
    """One boundary of eight voxels: of four coarse ones the middle two get half of what the fine voxels lost."""
    it = layout({"background": 0, "a": 1})
    labels = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1]]])
    smoothing = Smoothing(LabelOptions(smoothing="boundary", epsilon=0.5), independent=False)
    seen = []

    class Spy(CrossEntropyOverlapLoss):
        def forward(self, logits, target, mask=None):
            seen.append(target[0, 1].tolist())
            return super().forward(logits, target, mask)

    loss = TargetLoss(Spy(), (0.6, 0.4), it, smoothing, soft=False)
    outputs = [torch.zeros(1, 2, 8), torch.zeros(1, 2, 4)]
    value = loss(outputs, [labels])  # alone in a list, as nnU-Net's validation hands it on
    assert seen == [[0, 0, 0, 0.25, 0.75, 1, 1, 1], [0, 0.125, 0.875, 1]]
    torch.testing.assert_close(value, loss(outputs, labels))


def test_a_target_per_output_is_taken_as_it_is():
    it = layout({"background": 0, "a": 1})
    loss = TargetLoss(CrossEntropyOverlapLoss(), (0.6, 0.4), it, PLAIN, soft=False)
    fine, coarse = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[1, 0]]])  # no average of the fine one
    outputs = [torch.randn(1, 2, 4), torch.randn(1, 2, 2)]
    single = CrossEntropyOverlapLoss()
    expected = 0.6 * single(outputs[0], one_hot(fine, 2)) + 0.4 * single(outputs[1], one_hot(coarse, 2))
    torch.testing.assert_close(loss(outputs, [fine, coarse]), expected)


@pytest.mark.parametrize("smoothing", ["off", "all", "boundary"])
@pytest.mark.parametrize("weights", [None, (0.6, 0.4)])
def test_ignored_voxels_have_no_effect_and_no_gradient(smoothing, weights):
    it = layout({"background": 0, "a": 1, "ignore": 2})
    torch.manual_seed(0)
    loss = TargetLoss(
        CrossEntropyOverlapLoss(),
        weights,
        it,
        Smoothing(LabelOptions(smoothing=smoothing), independent=False),
        soft=True,
    )
    soft = torch.rand(2, 1, 8, 8)
    ignored = torch.zeros(2, 1, 8, 8)
    ignored[..., :4] = 1
    fine, coarse = (torch.randn(2, 2, n, n, requires_grad=True) for n in (8, 4))
    outputs = fine if weights is None else [fine, coarse]

    def of(values):
        return loss(outputs, torch.cat((values * (1 - ignored), ignored, torch.zeros_like(soft)), 1))

    value = of(soft)
    value.backward()
    assert (fine.grad[..., :4] == 0).all()
    assert (fine.grad[..., 4:] != 0).any()
    if weights:
        assert (coarse.grad[..., :2] == 0).all()
        assert (coarse.grad[..., 2:] != 0).any()
    other = soft.clone()
    other[..., :4] = 0
    torch.testing.assert_close(of(other), value)
    other[..., 4:] = 0
    assert of(other) != value
