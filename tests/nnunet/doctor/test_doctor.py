"""The doctor on a small data set whose arrays are saved without nnU-Net's planning, healthy and broken."""

from __future__ import annotations

import json
import os
import random
import shutil

import numpy as np
import pytest
import torch

from nnunet_dml.labels.storage import open_soft_map, save_soft_map
from nnunet_dml.nnunet.doctor import judge
from nnunet_dml.nnunet.findings import Step
from nnunet_dml.nnunet.fractions_way import Tally
from nnunet_dml.nnunet.preprocess import preprocess
from tests.nnunet.doctor.discs import (
    CASES,
    NAME,
    RATERS,
    disc,
    files,
    look,
    said,
    shares,
    write,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # nnU-Net's loader and transforms warn


# -- a healthy data set ------------------------------------------------------------------------------------------


def test_nothing_is_wrong(world):
    report = look()
    assert said(report) == []
    assert report.problems == 0
    title = "nnUNetTrainerDML on 2d of nnUNetPlans, labels.source=weighted; at most 5 cases, 4 patches"
    assert report.title == title
    ring = (disc(6) != disc(10)).mean()  # where three concentric discs differ
    steps = list(report.steps)
    assert [it.name for it in steps] == [
        "fused, original space",
        "nnU-Net's grid, float",
        "stored",
        "loaded patches",
        "augmented patches",
        "target, 32 × 32",
        "target, 16 × 16",
    ]
    assert [it.share for it in steps[:3]] == pytest.approx([ring] * 3)
    assert steps[1].error == 0  # nothing was resampled
    assert 0 < steps[2].error <= 0.5 / 255 + 1e-6
    assert all(it.share > 0.02 for it in steps)


def test_the_lines_on_a_healthy_data_set(world):
    text = "\n".join(said(look(), "ok"))
    assert "labels background 0, core 1; 3 raters listed" in text
    assert "4 cases with 3 raters" in text
    assert "masks: 12 read" in text
    assert "nnUNetPlans_2d, uniform: 4 maps, all up to date" in text
    assert "nnUNetPlans_2d, weighted: 4 maps, all up to date" in text


def test_nothing_is_written_and_everything_is_put_back(world, tmp_path):
    before, environment = files(tmp_path), dict(os.environ)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    look()
    assert files(tmp_path) == before
    assert dict(os.environ) == environment
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states


def test_it_repeats_itself(world):
    assert look() == look()


def test_quick_reads_no_masks(world):
    world.rater("b", "r2").write_bytes(b"")
    text = "\n".join(said(look(quick=True, cases=1)))
    assert "stale: sources changed" in text
    assert "an empty file" not in text
    assert "b/r2.nii.gz: expected a readable nii.gz file, found an empty file" in "\n".join(
        said(look(cases=1))
    )


# -- broken ones ---------------------------------------------------------------------------------------------------


def test_a_stale_map_is_named(world):
    write(world.rater("b", "r1"), disc(5))
    (line, *more) = said(look())
    assert line.startswith(
        "nnUNetPlans_2d, uniform: expected up-to-date maps of all 4 cases, found b (stale: sources changed)."
    )
    assert "Run `nnunet-dml preprocess -d Dataset501_Test -c 2d --fusion uniform`." in line
    assert any(line.startswith("stored: the files differ from what their sources give") for line in more)


def test_missing_and_damaged_maps_are_named_and_no_patch_is_drawn(world):
    world.map("a").unlink()
    world.map("c").write_bytes(world.map("c").read_bytes()[:100])
    report = look()
    text = "\n".join(said(report))
    assert "weighted: expected up-to-date maps of all 4 cases, found a (missing), c (damaged)" in text
    assert "loaded patches: none drawn: the maps of 2 cases are missing or damaged" in text
    assert "uniform" not in text
    assert len(report.steps) == 4


def test_a_source_that_was_never_preprocessed(world):
    world.plans("other", labels={"source": "staple"})
    (line,) = [line for line in said(look(), "note") if line.startswith("other")]
    assert "labels.source=staple is not preprocessed for 2d" in line
    assert "Run `nnunet-dml preprocess -d Dataset501_Test -c 2d -p other --fusion staple`." in line
    text = "\n".join(said(look(plans_name="other")))
    assert "nnUNetPlans_2d, staple: expected up-to-date maps of all 4 cases, found a (missing)" in text


def test_a_mask_on_another_grid_and_one_with_other_values(world):
    write(world.rater("a", "r3"), disc(10), spacing=(1.0, 2.0, 1.0))
    write(world.rater("b", "r3"), 2 * disc(10))
    text = "\n".join(said(look()))
    assert "a/r3.nii.gz: expected spacing (1, 1, 1)" in text
    assert "b/r3.nii.gz: expected labels 0 … 1 as in dataset.json, found 0 … 2." in text


def test_thresholded_maps_are_where_fractions_end(world):
    for case in CASES:
        found = open_soft_map(world.map(case))
        metadata = {
            key: value for key, value in found.metadata.items() if key not in ("format", "scale", "crc32")
        }
        maps = (found.load() > 0.5).astype(np.float32)
        world.map(case).unlink()
        save_soft_map(world.map(case), maps, metadata=metadata)
    report = look()
    text = "\n".join(said(report))
    assert "nnUNetPlans_2d, weighted: all maps hold only 0 and 255, no fraction: a, b, c, d" in text
    assert "stored: this step makes labels hard" in text
    assert shares(report)["nnU-Net's grid, float"] > 0
    assert shares(report)["stored"] == shares(report)["loaded patches"] == 0


def test_transforms_that_lose_fractions_are_named(world, monkeypatch):
    from nnunet_dml.nnunet import transforms

    stock = transforms.PackTargets.apply

    def thresholding(self, data_dict, **params):
        data_dict["regression_target"] = (data_dict["regression_target"] > 0.5).float()
        return stock(self, data_dict, **params)

    monkeypatch.setattr(transforms.PackTargets, "apply", thresholding)
    report = look()
    assert said(report) == [
        f"augmented patches: this step makes labels hard: of {shares(report)['loaded patches']:.2%} fractional voxels none is left"
    ]


def test_a_loss_that_rounds_its_target_is_named(world, monkeypatch):
    from nnunet_dml.nnunet.targets import TargetLayout

    stock = TargetLayout.soft
    monkeypatch.setattr(TargetLayout, "soft", lambda self, target: (stock(self, target)[0].round(), None))
    report = look()
    assert "target, 32 × 32: this step makes labels hard" in "\n".join(said(report))
    assert shares(report)["augmented patches"] > 0


def test_equal_raters(world):
    for case in CASES[:2]:
        for rater in RATERS:
            shutil.copy(world.consensus(case), world.rater(case, rater))
    assert "all raters are equal in 2 of 4 cases: a, b; their labels are hard" in "\n".join(
        said(look(), "note")
    )
    for case in CASES:
        for rater in RATERS:
            shutil.copy(world.consensus(case), world.rater(case, rater))
    preprocess("501", configurations=["2d"], fusions=["uniform", "weighted"], num_processes=1)
    report = look()
    assert "all raters are equal in 4 of 4 cases" in "\n".join(said(report))
    assert (
        "fused, original space: no fraction from the start: one rater, or all agree in every voxel"
        in said(report, "note")
    )


def test_cases_with_fewer_raters(world):
    cases = world.described["nnunet_dml"]["cases"]
    world.describe(
        nnunet_dml={"raters": list(RATERS), "cases": cases | {"a": {"raters": []}, "b": {"raters": ["r1"]}}}
    )
    shutil.rmtree(world.raw / "ratersTr" / "a")
    for rater in RATERS[1:]:
        world.rater("b", rater).unlink()
    text = "\n".join(said(look(), "note"))
    assert "1 cases have no raters (their consensus is used): a" in text
    assert "1 cases have a single rater (hard labels; smoothing or a teacher makes soft ones): b" in text


def test_lost_raters_and_a_copy_of_dataset_json_that_does_not_know_them(world):
    world.rater("a", "r2").unlink()
    assert "ratersTr/a: expected the raters r1, r2, r3" in "\n".join(said(look()))
    described = {key: value for key, value in world.described.items() if key != "nnunet_dml"}
    (world.preprocessed / "dataset.json").write_text(json.dumps(described))
    text = "\n".join(said(look()))
    assert "expected the nnunet_dml of" in text
    assert "trainers read this copy" in text


def test_soft_maps_of_the_users_own(world):
    for case in CASES:
        write(
            world.raw / "softlabelsTr" / f"{case}.nii.gz", (disc(8) * 0.6 + disc(6) * 0.4).astype(np.float32)
        )
    preprocess("501", configurations=["2d"], fusions=["file"], num_processes=1)
    world.plans("own", labels={"source": "file"})
    report = look(plans_name="own")
    assert said(report) == []
    assert "softlabelsTr: 4 of 4 cases have a soft map of their own; fractions in [0, 1]" in said(
        report, "ok"
    )
    assert shares(report)["stored"] == pytest.approx((disc(8) != disc(6)).mean())
    write(world.raw / "softlabelsTr" / "a.nii.gz", 255 * disc(8).astype(np.float32))
    assert "softlabelsTr/a.nii.gz: expected fractions in [0, 1]" in "\n".join(said(look(plans_name="own")))


def test_voxels_that_everybody_ignores_do_not_count(world):
    """All raters ignore the outside of a disc of radius 12: a target has less than all voxels, a map all of them."""
    world.describe(labels={"background": 0, "core": 1, "ignore": 2})
    for case in CASES:
        for rater, radius in zip(RATERS, (6, 8, 10), strict=True):
            write(world.rater(case, rater), np.where(disc(12), disc(radius), 2).astype(np.uint8))
    preprocess("501", configurations=["2d"], fusions=["uniform", "weighted"], num_processes=1)
    report = look(patches=8)
    assert said(report) == []
    ring = (disc(6) != disc(10)).mean()
    assert shares(report)["stored"] == pytest.approx(ring)
    assert shares(report)["target, 32 × 32"] > shares(report)["augmented patches"]


def test_regions(world):
    world.describe(labels={"background": 0, "whole": [1, 2], "core": 2}, regions_class_order=[1, 2])
    for case in CASES:
        for rater, radius in zip(RATERS, (6, 8, 10), strict=True):
            write(world.rater(case, rater), disc(radius) + disc(radius - 3))
    preprocess("501", configurations=["2d"], fusions=["uniform", "weighted"], num_processes=1)
    report = look()
    assert said(report) == []
    assert "region-based" in "\n".join(said(report, "ok"))
    assert shares(report)["target, 16 × 16"] > 0


# -- hard on purpose -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["hard", "majority", "random"])
def test_hard_on_purpose_is_named_and_not_wrong(world, source):
    if source != "hard":
        preprocess("501", configurations=["2d"], fusions=[source], num_processes=1)
    name = world.plans("hard", labels={"source": source})
    report = look(plans_name=name)
    assert said(report) == []
    assert f"hard on purpose: labels.source={source}" in "\n".join(said(report, "note"))
    if source == "random":
        assert shares(report)["stored"] == pytest.approx((disc(6) != disc(10)).mean())
    if source != "majority":
        assert shares(report)["loaded patches"] == shares(report)["augmented patches"] == 0
        assert shares(report)["target, 16 × 16"] == 0


def test_smoothing_makes_hard_labels_fractional_for_the_loss_alone(world):
    report = look(trainer_name="nnUNetTrainerDML_LS")
    assert shares(report)["augmented patches"] == 0
    assert shares(report)["target, 32 × 32"] == shares(report)["target, 16 × 16"] == 1


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainerConfigured"])
def test_trainers_that_take_hard_labels_are_named(world, trainer):
    report = look(trainer_name=trainer)
    assert said(report) == []
    assert f"{trainer} trains on nnU-Net's hard labels" in "\n".join(said(report, "note"))
    assert set(shares(report).values()) == {0}


def test_models_of_other_trainers_are_named(world, tmp_path):
    for name in ("nnUNetTrainer__nnUNetPlans__2d", "nnUNetTrainerDML__nnUNetPlans__2d"):
        (tmp_path / "results" / NAME / name).mkdir(parents=True)
    (line,) = [line for line in said(look(), "note") if line.startswith("results")]
    assert line.endswith("learn the consensus of the raters): nnUNetTrainer__nnUNetPlans__2d")


# -- the parts -----------------------------------------------------------------------------------------------------------


def test_a_tally_by_hand():
    tally = Tally()
    tally.add(np.array([[0, 128, 255, 255], [0, 127, 0, 0]], np.uint8), one=255)
    assert tally.step("x").share == 1 / 4
    tally.add(torch.tensor([[0.0, 1.0, 0.5, 1e-6]]), torch.tensor([True, True, True, False]))
    assert tally.step("x").share == 2 / 7
    tally.compare(np.array([1.0, 0.25]), np.array([1.0, 0.5]))
    assert tally.step("x") == Step("x", 2 / 7, 0.25)
    assert Tally().step("y").share is None


def test_only_the_step_that_loses_all_is_wrong():
    steps = [Step("a", 0.1), Step("b", 0.0), Step("c", 0.0), Step("d", None), Step("e", 0.2)]
    assert [it.level for it in judge(steps, "")] == ["ok", "wrong", "ok", "ok", "ok"]
    assert [it.level for it in judge(steps, "as asked")] == ["ok", "note", "note", "ok", "ok"]
    assert [it.remark for it in judge(steps, "as asked")] == ["", "as asked", "", "", ""]
