"""A case's figures against the metrics' own functions of whole cases."""

import numpy as np
import pytest
import torch

from nnunet_dml import metrics
from nnunet_dml.calibration import kernel_calibration_error
from nnunet_dml.evaluation import figures, measuring
from nnunet_dml.labels import boundary_voxels
from nnunet_dml.metrics import adaptive_error_from_counts, complements
from nnunet_dml.metrics.raters import LEVELS
from tests.evaluation.evaluation_world import LABELS, REGIONS, World

SHAPE = (9, 16, 18)


def blob(labels):
    """Three raters of a box with a core, who differ at its border, and a sure background around it."""
    rng = np.random.default_rng(3)
    votes = np.zeros((3, *SHAPE), np.uint8)
    for r, vote in enumerate(votes):
        vote[3:6, 4 + r : 9, 5:10] = 2
        vote[4:5, 5:8, 6 : 8 + r] = 1
    near = np.zeros(SHAPE)
    near[2:7, 3:11, 4:12] = 1
    counts = np.stack([(votes == c).sum(0) for c in range(3)])
    noise = np.moveaxis(rng.dirichlet(np.ones(3), SHAPE), -1, 0)
    sure = np.stack([1 - 1e-3 * noise[1] - 1e-3 * noise[2], 1e-3 * noise[1], 1e-3 * noise[2]])
    probs = np.where(near > 0, 0.5 * noise + 0.5 * counts / 3, sure).astype(np.float32)
    if labels is REGIONS:
        probs = np.stack([probs[1] + probs[2], probs[1]]).clip(0, 1)
    return votes, counts.argmax(0).astype(np.uint8), probs


def world_of_blobs(root, labels=LABELS, **options):
    world = World(root, shape=SHAPE, labels=labels, spacing=(1.0, 2.0, 2.5), **options)
    votes, consensus, probs = blob(labels)
    world.votes["a"], world.consensus["a"], world.probs["a"] = votes, consensus, probs
    world.write(world.label("a"), consensus)
    for r, vote in enumerate(votes):
        world.write(world.rater("a", r), vote)
    world.write_npz("a", 0, probs)
    return world


def edges(labels, classes, keep=None):
    hot = torch.stack([torch.from_numpy(labels == c) for c in range(classes)])[None].float()
    mask = None if keep is None else torch.from_numpy(keep)[None, None]
    return boundary_voxels(hot, mask=mask)[0, 0].numpy()


def calibration(p, y, near, edge, keep, prefix):
    """What `overall` should hold, from whole cases; `keep`: the voxels that count."""
    counts = metrics.adaptive_counts(p[None], y[None], mask=keep[None])
    return {
        f"{prefix}ece": metrics.expected_calibration_error(p, y, mask=keep),
        f"{prefix}mce": metrics.maximum_calibration_error(p, y, mask=keep),
        f"{prefix}sce": metrics.static_calibration_error(p, y, mask=keep),
        f"{prefix}ace": float(adaptive_error_from_counts(counts)),
        f"{prefix}brier": metrics.brier_score(p, y, mask=keep),
        f"{prefix}nll": metrics.negative_log_likelihood(p, y, mask=keep),
        f"{prefix}foreground_ece": metrics.expected_calibration_error(p, y, mask=near & keep),
        f"{prefix}boundary_ece": metrics.expected_calibration_error(p, y, mask=edge),
        f"{prefix}boundary_sce": metrics.static_calibration_error(p, y, mask=edge),
    }


def same(found, wanted):
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-5, abs=1e-7, nan_ok=True)


@pytest.mark.parametrize("block", [1, 700, 10**9])
def test_figures_equal_those_of_whole_cases(environment, block):
    world = world_of_blobs(environment)
    record = world.measure("a", block=block)
    p, y, votes = world.probs["a"], world.consensus["a"].astype(int), world.votes["a"].astype(int)
    soft = world.soft("a").astype(np.float32)
    hard, keep = p.argmax(0), np.ones(SHAPE, bool)
    near = metrics.near_foreground(hard, ((votes != 0).any(0) | (y != 0)).astype(int)).numpy()
    assert 0.2 < near.mean() < 0.9  # the box and its surroundings, not everything
    edge = edges(y, 3)
    wanted = calibration(p, y, near, edge, keep, "") | calibration(p, soft, near, edge, keep, "soft_")
    wanted["rater_ece"] = metrics.rater_ece(p, votes).mean()
    assert set(record.overall) == {*wanted, "kde_ece", "soft_kde_ece"}
    same(record.overall, wanted)
    ml = 1.0 * 2.0 * 2.5 / 1000
    assert record.spacing == (2.5, 2.0, 1.0)
    masks = metrics.class_masks(votes, num_classes=3)
    columns = {
        "dice": metrics.dice_per_class(hard, y, num_classes=3),
        "iou": metrics.iou_per_class(hard, y, num_classes=3),
        "soft_dice": metrics.soft_dice(p, soft),
        "bdice": metrics.bdice(p, soft),
        "classwise_ece": metrics.classwise_calibration_error(p, y)[1:],
        "soft_classwise_ece": metrics.classwise_calibration_error(p, soft)[1:],
        "volume_ml": ml * p.sum((1, 2, 3), dtype=float)[1:],
        "reference_ml": ml * soft.sum((1, 2, 3), dtype=float)[1:],
        "volume_bias": metrics.volume_bias(p, soft),
        "volume_difference_ml": metrics.absolute_volume_difference(p, soft, spacing=record.spacing),
        "crps_ml": metrics.volume_crps(p, votes, spacing=record.spacing),
        "rater_dice": metrics.rater_dice(hard, votes, num_classes=3).mean(0),
        "ged": metrics.generalised_energy_distance(metrics.level_sets(p), masks),
    }
    for k, name in enumerate(("core", "rim")):
        assert set(record.per_class[name]) == set(columns)
        same(record.per_class[name], {key: float(column[k]) for key, column in columns.items()})


@pytest.mark.parametrize("labels", [LABELS, REGIONS])
def test_the_energy_distance_sees_faint_voxels_far_away_whatever_else_is_measured(environment, labels):
    world = world_of_blobs(environment, labels)
    p = world.probs["a"]
    p[-1, :, -1], p[0, :, -1] = 0.08, 0.08 if labels is REGIONS else 1 - 0.08 - p[1, :, -1]
    world.write_npz("a", 0, p)
    members = ((1, 2), (1,)) if labels is REGIONS else ((1,), (2,))
    votes = np.stack([np.isin(world.votes["a"], it) for it in members], 1)
    levels = np.stack([p[-2:] >= level for level in LEVELS])
    wanted = metrics.generalised_energy_distance(levels, votes)
    for options in ({}, {"bins": 2, "thresholds": (0.5,)}):
        found = world.measure("a", **options).per_class
        assert [it["ged"] for it in found.values()] == pytest.approx(wanted, rel=1e-5)


def test_slabs_and_pieces_change_nothing(environment, monkeypatch):
    world = world_of_blobs(environment)
    whole = world.measure("a", block=10**9)
    monkeypatch.setattr(measuring, "PIECE", 50)
    parts = world.measure("a", block=1)
    same(parts.overall, whole.overall)
    for name, values in whole.per_class.items():
        same(parts.per_class[name], values)
    for name in whole.sums:
        np.testing.assert_allclose(parts.array(name), whole.array(name), rtol=1e-12, atol=1e-9)
    assert parts.flags == whole.flags


def test_the_ignore_label_and_abstentions(environment):
    world = world_of_blobs(environment, {**LABELS, "ignore": 3})
    p, y, votes = world.probs["a"], world.consensus["a"].copy(), world.votes["a"].copy()
    y[:, :6] = votes[:, :, :6] = 3
    votes[0, 5:] = 3
    world.write(world.label("a"), y)
    for r, vote in enumerate(votes):
        world.write(world.rater("a", r), vote)
    keep, voted = y != 3, votes != 3
    record = world.measure("a", block=300)
    soft = np.stack([((votes == c) & voted).sum(0) / np.maximum(voted.sum(0), 1) for c in range(3)])
    soft[0, ~keep] = 1
    soft, hard = soft.astype(np.float32), p.argmax(0)
    union = ((hard != 0) | ((votes > 0) & voted).any(0) | (y % 3 > 0)) & keep
    near = metrics.near_foreground(union, union).numpy()
    edge = edges(y, 3, keep)
    wanted = calibration(p, y.astype(int), near, edge, keep, "")
    wanted |= calibration(p, soft, near, edge, keep, "soft_")
    voted &= keep
    wanted["rater_ece"] = metrics.rater_ece(p, votes.astype(int), voted=voted).mean()
    same(record.overall, wanted)
    every = voted.all(0)
    masks = metrics.class_masks(votes, num_classes=3)
    expected = {
        "dice": metrics.dice_per_class(hard, y, num_classes=3, mask=keep),
        "bdice": metrics.bdice(p, soft, mask=keep),
        "volume_bias": metrics.volume_bias(p, soft, mask=keep),
        "rater_dice": metrics.rater_dice(hard, votes, num_classes=3, voted=voted).mean(0),
        "ged": metrics.generalised_energy_distance(metrics.level_sets(p), masks, mask=every),
        "crps_ml": metrics.volume_crps(p, votes % 3, spacing=record.spacing, mask=every),
    }
    for k, name in enumerate(("core", "rim")):
        same(record.per_class[name], {key: float(column[k]) for key, column in expected.items()})
    assert record.flags["ignored_voxels"] == np.count_nonzero(~keep)


@pytest.mark.parametrize("block", [1, 10**9])
def test_regions_are_cases_of_two_classes_each(environment, block):
    world = world_of_blobs(environment, REGIONS)
    record = world.measure("a", block=block)
    probs, labels, votes = world.probs["a"], world.consensus["a"], world.votes["a"]
    inside = [lambda it: it > 0, lambda it: it == 1]
    seg = np.zeros(SHAPE, int)
    seg[probs[0] > 0.5] = 2
    seg[probs[1] > 0.5] = 1
    union = (seg > 0) | (labels > 0) | (votes > 0).any(0)
    near = metrics.near_foreground(union, union).numpy()
    assert record.flags["reference_empty"] == [False, False]
    tops, softs, briers = [], [], []
    for r, name in enumerate(("whole", "core")):
        p = complements(probs)[r].numpy()
        y, soft = inside[r](labels), inside[r](votes).mean(0).astype(np.float32)
        s = np.stack([1 - soft, soft])
        samples = metrics.level_sets(p)
        wanted = {
            "dice": metrics.dice(inside[r](seg), y),
            "soft_dice": metrics.soft_dice(p, s)[0],
            "bdice": metrics.bdice(p, s)[0],
            "volume_bias": metrics.volume_bias(p, s)[0],
            "classwise_ece": metrics.classwise_calibration_error(p, y.astype(int))[1],
            "soft_classwise_ece": metrics.classwise_calibration_error(p, s)[1],
            "rater_dice": np.mean([metrics.dice(inside[r](seg), inside[r](it)) for it in votes]),
            "ged": metrics.generalised_energy_distance(samples, torch.from_numpy(inside[r](votes))[:, None])[
                0
            ],
            "crps_ml": metrics.volume_crps(p, inside[r](votes).astype(int), spacing=record.spacing)[0],
        }
        same(record.per_class[name], {key: float(value) for key, value in wanted.items()})
        tops.append(metrics.reliability_counts(p[None], y.astype(int)[None]))
        edge = edges(y, 2)
        softs.append(metrics.reliability_counts(p[None], s[None], mask=edge[None]))
        briers.append(metrics.brier_score(p, y.astype(int)))
    pooled = {
        "ece": float(metrics.ece_from_counts(sum(tops))),
        "soft_boundary_ece": float(metrics.ece_from_counts(sum(softs))),
        "brier": np.mean(briers),
        "sce": np.mean([record.per_class[it]["classwise_ece"] for it in ("whole", "core")]),
    }
    same(record.overall, pooled)
    near_counts = [
        metrics.reliability_counts(
            complements(probs)[r, None], inside[r](labels).astype(int)[None], mask=near[None]
        )
        for r in range(2)
    ]
    np.testing.assert_allclose(record.array("reliability_foreground"), sum(near_counts))


def test_later_regions_are_written_over_earlier_ones(environment):
    world = World(environment, labels=REGIONS)
    world.save(regions_class_order=[2, 1])
    probs = np.zeros((2, 6, 7), np.float32)
    probs[1, 0, 0] = 0.9  # the core without the whole: nnU-Net writes label 1, which belongs to both
    probs[0, 1, 1] = 0.5  # does not exceed 0.5
    world.write_npz("a", 0, probs)
    labels = np.zeros((6, 7), np.uint8)
    labels[0, :2] = 1
    world.write(world.label("a"), labels)
    record = world.measure("a")
    assert record.array("overlap").tolist() == [[1, 1], [1, 1], [2, 2]]
    assert record.per_class["whole"]["dice"] == pytest.approx(2 / 3)


def test_hand_computed_case(environment):
    world = World(environment, labels={"background": 0, "core": 1}, shape=(1, 2), raters=2, spacing=10.0)
    for r, vote in enumerate(([[1, 0]], [[1, 1]])):
        world.write(world.rater("a", r), np.array(vote, np.uint8))
    world.write(world.label("a"), np.array([[1, 0]], np.uint8))
    p = np.array([[0.8, 0.55]], np.float32)
    world.write_npz("a", 0, np.stack([1 - p, p]))
    record = world.measure("a")
    core, overall = record.per_class["core"], record.overall
    voxel = 0.1  # 10 mm × 10 mm, and 1 mm thick as the files are 2D
    assert core["dice"] == pytest.approx(2 / 3)
    assert core["volume_ml"] == pytest.approx(1.35 * voxel)
    assert core["reference_ml"] == pytest.approx(1.5 * voxel)
    assert core["volume_bias"] == pytest.approx(-0.1)
    assert core["volume_difference_ml"] == pytest.approx(0.15 * voxel)
    assert core["soft_dice"] == pytest.approx(2 * 1.3 / 2.85)
    assert core["rater_dice"] == pytest.approx((2 / 3 + 1) / 2)
    assert overall["ece"] == pytest.approx((0.2 + 0.55) / 2)
    assert overall["soft_ece"] == pytest.approx((0.2 + 0.05) / 2)
    assert overall["brier"] == pytest.approx((2 * 0.04 + 2 * 0.3025) / 2)
    assert overall["rater_ece"] == pytest.approx(((0.2 + 0.55) / 2 + (0.2 + 0.45) / 2) / 2)
    # thresholds to 0.5: both sides whole; to 0.8: one voxel each; 0.9: nothing against one
    assert core["bdice"] == pytest.approx((5 * 1 + 3 * 1 + 0) / 9)


def test_the_kernel_error_is_that_of_a_sample_drawn_by_name(environment, monkeypatch):
    world = World(environment)
    p = torch.from_numpy(world.probs["a"]).flatten(1).T
    y = torch.from_numpy(world.consensus["a"]).flatten()
    hot = torch.nn.functional.one_hot(y.long(), 3).float()
    record = world.measure("a")
    wanted = kernel_calibration_error(p, hot, bandwidth=figures.BANDWIDTH, kind="top_label")
    assert record.overall["kde_ece"] == pytest.approx(float(wanted))
    monkeypatch.setattr(measuring, "KERNEL_VOXELS", 20)
    drawn = world.measure("a").overall
    assert drawn["kde_ece"] == world.measure("a").overall["kde_ece"] != record.overall["kde_ece"]


def test_without_raters_soft_figures_are_the_hard_ones(environment):
    world = World(environment, raters=1)
    for case in "abcd":
        world.rater(case, 0).unlink()
    record = world.measure("a")
    assert record.flags["soft_reference"] == "labels"
    assert {name for name in record.overall if name.startswith("rater")} == set()
    for name, value in record.overall.items():
        if name.startswith("soft_"):
            assert value == record.overall[name.removeprefix("soft_")], name
    assert "ged" not in record.per_class["core"]


def test_a_case_of_nothing_but_sure_background(environment):
    world = World(environment, labels={"background": 0, "core": 1}, shape=(4, 5, 6))
    nothing = np.zeros((4, 5, 6), np.uint8)
    for r in range(3):
        world.write(world.rater("a", r), nothing)
    world.write(world.label("a"), nothing)
    p = np.full((4, 5, 6), 0.01, np.float32)
    world.write_npz("a", 0, np.stack([1 - p, p]))
    record = world.measure("a")
    core = record.per_class["core"]
    assert core["dice"] == core["bdice"] == core["rater_dice"] == 1
    assert core["ged"] == 0
    assert np.isnan(core["volume_bias"])
    assert core["volume_ml"] == core["crps_ml"] == pytest.approx(120 * 0.01 / 1000)
    assert record.overall["ece"] == pytest.approx(0.01, rel=1e-4)
    assert np.isnan(record.overall["foreground_ece"])
    assert np.isnan(record.overall["soft_boundary_sce"])
    assert record.flags["raters_empty"]
    assert record.flags["reference_empty"] == record.flags["prediction_empty"] == [True]
