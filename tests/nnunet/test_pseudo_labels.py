"""Pseudo-labels by hand, and the loss of labelled and unlabelled samples against the losses of each part."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_dml.labels import smooth_boundary
from nnunet_dml.losses import (
    CrossEntropyOverlapLoss,
    DistillationLoss,
    average_down,
    deep_supervision_weights,
    one_hot,
)
from nnunet_dml.nnunet.option_groups import LabelOptions
from nnunet_dml.nnunet.pseudo_labels import JointLoss, pseudo_labels
from nnunet_dml.nnunet.targets import Smoothing, TargetLayout

TWO = TargetLayout(foreground=2, regions=None, ignore_label=None)
SHARES = {"ce_label": 0.3, "ce_teacher": 0.7, "overlap_label": 0.9, "overlap_teacher": 0.4}
SIZES = [(8, 12), (4, 8, 4)]


def logits_of(probs):
    """(1, C, V) logits whose softmax is the given (C, V)."""
    return torch.tensor(probs)[None].clamp(min=1e-9).log()


class TestPseudoLabels:
    def test_two_classes_by_hand(self):
        """Certainty 0.9, 0.5, 0.8; excess 0.8, 0, 0.6; foreground 0.1, 0.5, 0.8."""
        got = pseudo_labels(logits_of([[0.9, 0.5, 0.2], [0.1, 0.5, 0.8]]), independent=False, threshold=0.75)
        torch.testing.assert_close(got.fractions[0], torch.tensor([[0.9, 0.5, 0.2], [0.1, 0.5, 0.8]]))
        assert got.valid.tolist() == [[[True, False, True]]]
        assert got.confidence.item() == pytest.approx((0.8 * 0.1 + 0 + 0.6 * 0.8) / 1.4)

    def test_three_classes_by_hand(self):
        got = pseudo_labels(logits_of([[0.2], [0.7], [0.1]]), independent=False)
        assert got.confidence.item() == pytest.approx((3 * 0.7 - 1) / 2)

    def test_regions_by_hand(self):
        """Certainty is the less certain region's: 0.9 and 0.6; foreground is the likelier one: 0.9 and 0.6."""
        probs = torch.tensor([[[0.9, 0.05], [0.05, 0.6]]])
        got = pseudo_labels(torch.logit(probs), independent=True, threshold=0.7)
        torch.testing.assert_close(got.fractions, probs)
        assert got.valid.tolist() == [[[True, False]]]
        assert got.confidence.item() == pytest.approx((0.8 * 0.9 + 0.2 * 0.6) / 1.5)

    @pytest.mark.parametrize("independent", [False, True])
    def test_the_extremes_of_confidence(self, independent):
        undecided = torch.zeros(1, 4, 5, 5)
        assert pseudo_labels(undecided, independent=independent).confidence.item() == pytest.approx(0)
        certain = torch.full((1, 4, 5, 5), -50.0)
        certain[:, 0] = 50
        assert pseudo_labels(certain, independent=independent).confidence.item() == pytest.approx(1)

    def test_a_large_background_does_not_hide_a_doubtful_lesion(self):
        logits = torch.full((1, 2, 100, 100), 0.0)
        logits[:, 0] = 12
        assert pseudo_labels(logits, independent=False).confidence.item() > 0.999
        logits[:, 0, :3, :3] = 0
        assert pseudo_labels(logits, independent=False).confidence.item() < 0.05

    def test_hard_ones(self):
        logits = torch.tensor([[[2.0, 1.0, 1.0], [1.0, 3.0, 1.0]]])
        hard = pseudo_labels(logits, independent=False, kind="hard")
        assert hard.fractions.tolist() == [[[1, 0, 1], [0, 1, 0]]]
        regions = pseudo_labels(torch.tensor([[[2.0, -1.0], [0.1, 3.0]]]), independent=True, kind="hard")
        assert regions.fractions.tolist() == [[[1, 0], [1, 1]]]

    def test_threshold_zero_takes_all_and_half_precision_is_kept_out(self):
        got = pseudo_labels(torch.randn(2, 3, 4, 4).half(), independent=False)
        assert got.valid.all()
        assert got.fractions.dtype == torch.float32
        torch.testing.assert_close(got.fractions.sum(1), torch.ones(2, 4, 4))


def joint(layout=TWO, weights=None, smoothing=None, *, soft=False, **options):
    """A joint loss with four different weights."""
    options = {"weight_ce": 0.5, "weight_overlap": 1.5} | options
    independent = layout.regions is not None
    loss = DistillationLoss(
        "dml", activation="sigmoid" if independent else "softmax", teacher_active="all", **SHARES, **options
    )
    labels = LabelOptions.model_validate(smoothing or {})
    return JointLoss(loss, weights, layout, Smoothing(labels, independent=independent), soft=soft)


def plain(ce, overlap, **options):
    return CrossEntropyOverlapLoss("dml", weight_ce=0.5 * ce, weight_overlap=1.5 * overlap, **options)


def batch_of(size, labelled=2, unlabelled=3, classes=3, seed=0):
    """Logits of all, hard labels (L, 1, …), pseudo-labels and their mask."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(labelled + unlabelled, classes, *size, generator=g)
    target = torch.randint(classes, (labelled, 1, *size), generator=g)
    fractions = torch.randn(unlabelled, classes, *size, generator=g).softmax(1)
    return logits, target, fractions, torch.rand(unlabelled, 1, *size, generator=g) > 0.3


@pytest.mark.parametrize("size", SIZES)
class TestJointLoss:
    def test_it_is_the_sum_over_both_parts(self, size):
        logits, target, fractions, valid = batch_of(size)
        expected = plain(0.3, 0.9)(logits[:2], one_hot(target, 3)) + plain(0.7, 0.4)(
            logits[2:], fractions, valid
        )
        torch.testing.assert_close(joint()(logits, [target, fractions, valid]), expected)

    def test_in_all_resolutions(self, size):
        logits, target, fractions, valid = batch_of(size)
        valid = torch.ones_like(valid)
        outputs = [average_down(logits, [n // k for n in size]) for k in (1, 2, 4)]
        weights = deep_supervision_weights(3)
        expected = torch.zeros(())
        for weight, output in zip(weights, outputs, strict=True):
            if weight:
                labels = average_down(one_hot(target, 3), output.shape[2:])
                pseudo = average_down(fractions, output.shape[2:])
                parts = plain(0.3, 0.9)(output[:2], labels) + plain(0.7, 0.4)(output[2:], pseudo)
                expected = expected + weight * parts
        got = joint(weights=weights)(outputs, [target, fractions, valid])
        torch.testing.assert_close(got, expected)

    def test_labels_and_pseudo_labels_are_smoothed_in_full_resolution(self, size):
        logits, target, fractions, valid = batch_of(size)
        options = {"smoothing": "boundary", "epsilon": 0.5}
        labels = smooth_boundary(one_hot(target, 3), epsilon=0.5)
        pseudo = smooth_boundary(fractions, epsilon=0.5, mask=valid)
        assert not torch.equal(pseudo, fractions)
        expected = plain(0.3, 0.9)(logits[:2], labels) + plain(0.7, 0.4)(logits[2:], pseudo, valid)
        got = joint(smoothing=options)(logits, [target, fractions, valid])
        torch.testing.assert_close(got, expected)

    def test_voxels_that_are_not_valid_do_not_count(self, size):
        logits, target, fractions, valid = batch_of(size)
        first = joint()(logits, [target, fractions, valid])
        other = torch.where(valid, fractions, 1 / 3)
        changed = torch.cat((logits[:2], torch.where(valid, logits[2:], 5.0)))
        torch.testing.assert_close(joint()(changed, [target, other, valid]), first)
        assert joint()(logits, [target, other, torch.ones_like(valid)]) != first

    @pytest.mark.parametrize("log", [False, True])
    def test_labelled_samples_alone_have_the_whole_weight(self, size, log):
        logits, target, _, _ = batch_of(size)
        expected = plain(0.3 + 0.7, 0.9 + 0.4, log=log)(logits[:2], one_hot(target, 3))
        loss = joint(log=log)
        torch.testing.assert_close(loss(logits[:2], target), expected)
        torch.testing.assert_close(loss(logits[:2], [target]), expected)

    def test_packed_soft_labels_and_an_ignore_label(self, size):
        layout = TargetLayout(foreground=2, regions=None, ignore_label=3)
        logits, target, fractions, valid = batch_of(size)
        g = torch.Generator().manual_seed(7)
        soft = torch.rand(2, 2, *size, generator=g) / 2
        ignored = (torch.rand(2, 1, *size, generator=g) > 0.5).float()
        packed = torch.cat((soft * (1 - ignored), ignored, target.float()), 1)
        labels, mask = layout.soft(packed)
        expected = plain(0.3, 0.9)(logits[:2], labels, mask) + plain(0.7, 0.4)(logits[2:], fractions, valid)
        loss = joint(layout, soft=True)
        torch.testing.assert_close(loss(logits, [packed, fractions, valid]), expected)
        got, counts = loss.labels(packed)
        torch.testing.assert_close(got, labels)
        assert torch.equal(counts, mask)

    def test_regions(self, size):
        layout = TargetLayout(foreground=2, regions=((1, 2), (2,)), ignore_label=None)
        logits, _, fractions, valid = batch_of(size, classes=2)
        g = torch.Generator().manual_seed(7)
        regions = torch.rand(2, 2, *size, generator=g) > 0.5
        expected = plain(0.3, 0.9, activation="sigmoid")(logits[:2], regions.float()) + plain(
            0.7, 0.4, activation="sigmoid"
        )(logits[2:], fractions, valid)
        torch.testing.assert_close(joint(layout)(logits, [regions, fractions, valid]), expected)


def test_the_four_terms_are_kept_unweighted():
    """At even probabilities CE is log 3 everywhere; at p = y Δ is 0."""
    logits, target, _, _ = batch_of((8, 8))
    even = torch.zeros_like(logits)
    third = torch.full((3, 3, 8, 8), 1 / 3)
    loss = joint()
    loss(even.requires_grad_(), [target, third, torch.ones(3, 1, 8, 8, dtype=torch.bool)])
    ce_labelled, ce_unlabelled, overlap_labelled, overlap_unlabelled = loss.terms.tolist()
    assert ce_labelled == pytest.approx(math.log(3), rel=1e-5)
    assert ce_unlabelled == pytest.approx(math.log(3), rel=1e-5)
    assert overlap_unlabelled == pytest.approx(0, abs=1e-5)
    labels = one_hot(target, 3)[:, 1:]
    reached, total = torch.minimum(labels, torch.tensor(1 / 3)), labels + 1 / 3
    by_hand = 1 - 2 * reached.sum((0, 2, 3)) / total.sum((0, 2, 3))
    assert overlap_labelled == pytest.approx(by_hand.mean().item(), rel=1e-4)
    assert not loss.terms.requires_grad


def test_labels_without_an_ignore_label_count_everywhere():
    _, target, _, _ = batch_of((8, 8))
    fractions, counts = joint(smoothing={"smoothing": "all", "epsilon": 0.1}).labels(target)
    assert torch.equal(fractions, one_hot(target, 3))
    assert counts.dtype == torch.bool
    assert counts.shape == (2, 1, 8, 8)
    assert counts.all()
