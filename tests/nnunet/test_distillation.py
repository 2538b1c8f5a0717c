"""The loss with a teacher on nnU-Net's targets, the teacher's calibration, and what is noted of both."""

from __future__ import annotations

import pytest
import torch

from nnunet_dml.calibration import apply_temperature, bandwidth_by_brier, calibrate_batch, wrong_voxels
from nnunet_dml.calibration.bandwidth import GRID
from nnunet_dml.calibration.keys import choose_weighted_keys
from nnunet_dml.labels import boundary_voxels, smooth_labels
from nnunet_dml.losses import CrossEntropyOverlapLoss, DistillationLoss, one_hot
from nnunet_dml.metrics import expected_calibration_error
from nnunet_dml.nnunet import teacher_calibration
from nnunet_dml.nnunet.distillation import TaughtLoss, TeachingRecord
from nnunet_dml.nnunet.option_groups import LabelOptions, TeacherOptions
from nnunet_dml.nnunet.targets import Smoothing, TargetLayout, TargetLoss
from nnunet_dml.nnunet.teacher_calibration import TeacherCalibration

LABELS = TargetLayout(foreground=1, regions=None, ignore_label=None)
PARTIAL = TargetLayout(foreground=1, regions=None, ignore_label=2)
REGIONS = TargetLayout(foreground=2, regions=((1, 2), (2,)), ignore_label=None)
PLAIN = Smoothing(LabelOptions(), independent=False)
OUTPUTS = [torch.randn(1, 2, 4, 4), torch.randn(1, 2, 2, 2)]
TARGET = (torch.rand(1, 1, 4, 4) > 0.5).float()
PROBS = torch.randn(1, 2, 4, 4).softmax(1)
WEIGHTS = (2 / 3, 1 / 3)


def taught(layout=LABELS, weights=WEIGHTS, smoothing=PLAIN, *, soft=False, **options):
    return TaughtLoss(DistillationLoss(**options), weights, layout, smoothing, soft=soft)


def value(loss, outputs=OUTPUTS, target=TARGET, probs=PROBS, mask=None):
    with loss.taught(probs, mask):
        return loss(outputs, target)


class TestLoss:
    def test_labels_and_teacher_are_averaged_down(self):
        coarse = [
            it.unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5)) for it in (one_hot(TARGET, 2), PROBS)
        ]
        single = DistillationLoss()
        expected = WEIGHTS[0] * single(OUTPUTS[0], one_hot(TARGET, 2), PROBS)
        expected += WEIGHTS[1] * single(OUTPUTS[1], *coarse)
        torch.testing.assert_close(value(taught()), expected)

    def test_hard_labels_may_come_once_per_output_as_without_a_teacher(self):
        targets = [TARGET, TARGET[..., ::2, ::2]]
        coarse = PROBS.unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5))
        single = DistillationLoss()
        expected = WEIGHTS[0] * single(OUTPUTS[0], one_hot(TARGET, 2), PROBS)
        expected += WEIGHTS[1] * single(OUTPUTS[1], one_hot(targets[1], 2), coarse)
        torch.testing.assert_close(value(taught(), target=targets), expected)

    def test_without_the_teachers_terms_it_is_the_loss_without_a_teacher(self):
        loss = taught(ce_label=1, overlap_label=1, ce_teacher=0, overlap_teacher=0)
        alone = TargetLoss(CrossEntropyOverlapLoss(), WEIGHTS, LABELS, PLAIN, soft=False)
        torch.testing.assert_close(value(loss), alone(OUTPUTS, TARGET))

    def test_its_value_is_that_of_its_terms(self):
        loss = taught(weight_ce=2, weight_overlap=3, ce_teacher=0.25)
        total = value(loss)
        ce_label, ce_teacher, overlap_label, overlap_teacher = loss.terms
        expected = 2 * (0.5 * ce_label + 0.25 * ce_teacher) + 3 * 0.5 * (overlap_label + overlap_teacher - 2)
        torch.testing.assert_close(total, expected)

    def test_one_output_without_deep_supervision(self):
        expected = DistillationLoss()(OUTPUTS[0], one_hot(TARGET, 2), PROBS)
        torch.testing.assert_close(value(taught(weights=None), outputs=OUTPUTS[0]), expected)

    def test_only_the_labels_are_smoothed(self):
        smoothing = Smoothing(LabelOptions(smoothing="all", epsilon=0.2), independent=False)
        loss = taught(weights=None, smoothing=smoothing)
        smooth = smooth_labels(one_hot(TARGET, 2), epsilon=0.2)
        expected = DistillationLoss()(OUTPUTS[0], smooth, PROBS)
        torch.testing.assert_close(value(loss, outputs=OUTPUTS[0]), expected)
        assert torch.equal(loss.labels(TARGET)[0], one_hot(TARGET, 2))

    def test_ignored_voxels_count_for_neither(self):
        target = TARGET.clone()
        target[..., :2] = 2
        loss = taught(PARTIAL)
        mask = loss.labels([target, target[..., ::2, ::2]])[1]
        assert torch.equal(mask, target != 2)
        other = PROBS.flip(1).where(~mask, PROBS)
        assert value(loss, target=target, mask=mask) == value(loss, target=target, probs=other, mask=mask)

    def test_soft_labels_and_regions_are_read_as_without_a_teacher(self):
        packed = torch.cat((torch.full((1, 1, 4, 4), 0.25), TARGET), 1)
        assert torch.equal(taught(soft=True).labels(packed)[0][:, 1], packed[:, 0])
        regions = torch.cat((TARGET, TARGET), 1).bool()
        assert torch.equal(taught(REGIONS).labels(regions)[0], regions.float())
        loss = taught(REGIONS, activation="sigmoid")
        expected = WEIGHTS[0] * DistillationLoss(activation="sigmoid")(OUTPUTS[0], regions.float(), PROBS)
        down = [it.unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5)) for it in (regions.float(), PROBS)]
        expected += WEIGHTS[1] * DistillationLoss(activation="sigmoid")(OUTPUTS[1], *down)
        torch.testing.assert_close(value(loss, target=regions), expected)

    def test_the_teacher_is_forgotten_after_the_step(self):
        loss = taught()
        labels_alone = loss(OUTPUTS, TARGET)
        with pytest.raises(RuntimeError, match="a step that failed"), loss.taught(PROBS, None):
            raise RuntimeError("a step that failed")
        assert loss(OUTPUTS, TARGET) == labels_alone
        assert value(loss) != labels_alone
        assert taught().state_dict() == {}


class TestCalibration:
    labels = one_hot((torch.rand(2, 1, 16, 16) > 0.7).long(), 2)
    probs = (2 * torch.randn(2, 2, 16, 16)).softmax(1)

    def of(self, *, independent=False, **options):
        return TeacherCalibration(TeacherOptions(**options), independent=independent)

    def test_none(self):
        calibration = self.of(calibration="none")
        assert calibration(self.probs, self.labels, None) is self.probs
        assert not calibration.must_choose

    def test_temperature(self):
        calibration = self.of(calibration="temperature", temperature=3)
        assert torch.equal(calibration(self.probs, self.labels, None), apply_temperature(self.probs, 3.0))
        regions = self.of(calibration="temperature", temperature=3, independent=True)
        expected = apply_temperature(self.probs, 3.0, independent=True)
        assert torch.equal(regions(self.probs, self.labels, None), expected)

    @pytest.mark.parametrize("independent", [False, True])
    def test_all_voxels(self, independent):
        mask = torch.rand(2, 1, 16, 16) > 0.2
        calibration = self.of(voxels="all", bandwidth=0.1, keys=10**6, independent=independent)
        expected = calibrate_batch(
            self.probs, self.labels, bandwidth=0.1, keys=10**6, mask=mask, independent=independent
        )
        assert torch.equal(calibration(self.probs, self.labels, mask), expected)

    def test_voxels_that_are_wrong_or_near_a_boundary(self):
        labels = torch.zeros(1, 2, 1, 9)
        labels[:, 1, :, 6:], labels[:, 0, :, :6] = 1, 1
        probs = torch.tensor([0.9, 0.4, 0.8, 0.7, 0.6, 0.8, 0.1, 0.2, 0.3]).view(1, 1, 1, 9)
        probs = torch.cat((probs, 1 - probs), 1)
        found = self.of(bandwidth=0.1)(probs, labels, None)
        assert (found != probs)[0, 0, 0].tolist() == [
            False,
            True,
            False,
            False,
            False,
            True,
            True,
            False,
            False,
        ]
        found = self.of(bandwidth=0.1, neighbourhood=5)(probs, labels, None)
        assert (found != probs)[0, 0, 0].tolist() == [
            False,
            True,
            False,
            False,
            True,
            True,
            True,
            True,
            False,
        ]

    @pytest.mark.parametrize("valid", [False, True])
    def test_batches_without_anything_to_calibrate(self, valid):
        """One class, nothing wrong, no boundary; or no voxel with a label at all."""
        labels = torch.stack((torch.ones(1, 4, 4), torch.zeros(1, 4, 4)), 1)
        probs = torch.stack((torch.full((1, 4, 4), 0.9), torch.full((1, 4, 4), 0.1)), 1)
        mask = torch.full((1, 1, 4, 4), valid)
        for options in ({}, {"voxels": "all"}, {"calibration": "temperature", "temperature": 1}):
            found = self.of(**options)(probs, labels, mask)
            assert torch.isfinite(found).all()
            torch.testing.assert_close(found.sum(1), torch.ones(1, 4, 4))
        assert torch.equal(self.of()(probs, labels, mask), probs)

    @pytest.mark.parametrize("where", ["all", "boundary_error"])
    @pytest.mark.parametrize("independent", [False, True])
    def test_the_bandwidth_is_best_on_calibrated_voxels_that_are_no_keys(self, independent, where):
        calibration = self.of(bandwidth="auto", keys=200, voxels=where, independent=independent)
        assert calibration.must_choose
        batches = [(self.probs, self.labels, None), (self.labels * 0.8 + 0.1, self.labels, None)]
        calibration.random = torch.Generator().manual_seed(3)
        message = calibration.choose(batches)
        random, scores = torch.Generator().manual_seed(3), torch.zeros(len(GRID), dtype=torch.float64)
        for probs, labels, _ in batches:
            p, y = (it.movedim(1, -1).flatten(0, 2) for it in (probs, labels))
            chosen = wrong_voxels(probs, labels, independent=independent)
            chosen = (chosen | boundary_voxels(labels, independent=independent)).expand_as(labels)
            chosen = torch.ones_like(chosen) if where == "all" else chosen
            for columns in (slice(0, 1), slice(1, 2)) if independent else (slice(None),):
                keys, weights = choose_weighted_keys(
                    labels[:, columns], keys=200, independent=independent, generator=random
                )
                left = chosen[:, columns].amax(1).flatten()
                left[keys] = False
                rest = left.nonzero()[:, 0]
                torch.randperm(len(rest), generator=random)  # all are few enough
                found = bandwidth_by_brier(
                    p[rest, columns], y[rest, columns], p[keys, columns], y[keys, columns],
                    kernel="beta" if independent else "dirichlet", key_weights=weights,
                )  # fmt: skip
                scores += torch.tensor(found.scores, dtype=torch.float64)
        assert calibration.parameter == GRID[scores.argmin()]
        assert message.startswith(
            f"The teacher's bandwidth is {calibration.parameter:.4g}, with the lowest Brier score on 2 training batches"
        )

    def test_the_fitted_temperature(self, monkeypatch):
        torch.manual_seed(0)
        truth = torch.rand(1, 1, 200, 200)
        labels = (torch.rand_like(truth) < truth).float()
        mask = torch.rand_like(truth) < 0.5
        sure = torch.logit(truth, 1e-6).mul(4).sigmoid().where(mask, 0.5)
        monkeypatch.setattr(teacher_calibration, "ROWS", 15_000)
        calibration = self.of(calibration="temperature")
        message = calibration.choose(
            [(torch.cat((1 - sure, sure), 1), torch.cat((1 - labels, labels), 1), mask)]
        )
        assert calibration.parameter == pytest.approx(4, rel=0.05)
        assert "fitted on 1 training batches." in message
        regions = self.of(calibration="temperature", independent=True)
        regions.choose([(sure, labels, mask)])
        assert regions.parameter == pytest.approx(4, rel=0.05)

    def test_a_temperature_that_nothing_bounds_is_said_to_be_a_bound(self):
        calibration = self.of(calibration="temperature")
        message = calibration.choose([(self.labels * 0.8 + 0.1, self.labels, None)])
        assert "a bound of the search" in message

    def test_where_nothing_has_a_label_the_default_is_taken(self):
        nothing = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
        for options, expected in (({"bandwidth": "auto"}, 1e-3), ({"calibration": "temperature"}, 1.0)):
            calibration = self.of(**options)
            message = calibration.choose([(self.probs, self.labels, nothing)])
            assert calibration.parameter == expected
            assert "as the patches have no voxel to choose it on" in message or "none at all" in message


class TestRecord:
    def test_means_over_steps_and_the_error_over_all_voxels(self):
        record = TeachingRecord(torch.device("cpu"), independent=False)
        record.add_terms(torch.tensor([1.0, 2, 3, 4]))
        record.add_terms(torch.tensor([3.0, 2, 1, 0]))
        labels = one_hot(torch.rand(2, 1, 8, 8).gt(0.5).long(), 2)
        before, after = (torch.randn(2, 2, 8, 8).softmax(1) for _ in range(2))
        mask = torch.rand(2, 1, 8, 8) > 0.3
        for i in range(2):
            record.add_teacher(before[i : i + 1], after[i : i + 1], labels[i : i + 1], mask[i : i + 1])
        terms, errors = record.figures()
        assert terms == [2, 2, 2, 2]
        truth = labels.argmax(1).movedim(0, 1)
        for found, probs in zip(errors, (before, after), strict=True):
            expected = expected_calibration_error(probs.movedim(0, 2), truth, mask=mask[:, 0].movedim(0, 1))
            assert found == pytest.approx(expected)

    def test_a_region_counts_against_its_complement(self):
        record = TeachingRecord(torch.device("cpu"), independent=True)
        probs = torch.tensor([[[0.87, 0.9], [0.15, 0.3]]])
        labels = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]])
        record.add_teacher(probs, probs, labels, torch.tensor([[[True, False]]]))
        _, errors = record.figures()
        # sure with 0.87 that the voxel is in the one, rightly, with 0.85 that it is not in the other, wrongly: one bin
        assert errors[0] == pytest.approx((0.87 + 0.85) / 2 - 0.5, abs=1e-6)

    def test_an_epoch_without_steps(self):
        terms, errors = TeachingRecord(torch.device("cpu"), independent=False).figures()
        assert all(it != it for it in (*terms, *errors))
