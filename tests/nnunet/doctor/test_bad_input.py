"""Names, options and files that are not there or not good."""

from __future__ import annotations

import json
import os

import pytest

from nnunet_dml.nnunet.doctor import examine
from tests.nnunet.doctor.discs import (
    look,
    said,
    shares,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # nnU-Net's loader and transforms warn


# -- what cannot be examined -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"plans_name": "nowhere"}, "nowhere.json: expected a file, found none."),
        ({"trainer_name": "nnUNetTrainerNone"}, "-tr: expected a trainer that nnU-Net finds"),
        ({"configuration": "3d_fullres"}, "expected 3d_fullres of nnUNetPlans, preprocessed, found 2d."),
    ],
)
def test_names_that_are_not_there(world, options, words):
    report = look(**options)
    assert any(words in line for line in said(report)), said(report)
    assert not report.steps


def test_bad_options_are_named(world):
    world.plans("bad", los={})
    text = "\n".join(said(look()))
    assert "bad.json: unknown option 'los'" in text
    assert not look(plans_name="bad").steps


def test_plans_for_another_trainer_are_not_judged_by_this_one(world):
    world.plans("tversky", loss={"alpha": 0.2})
    assert not said(look())
    assert "loss.alpha is read with loss.overlap=ctl only" in "\n".join(said(look(plans_name="tversky")))
    assert not said(look(plans_name="tversky", trainer_name="nnUNetTrainerCTL"))


def test_a_copy_of_dataset_json_of_another_format_is_one_line(world):
    world.plans("other", labels={"source": "auto"})
    path = world.preprocessed / "dataset.json"
    path.write_text(json.dumps({**world.described, "nnunet_dml": {"format": 2}}))
    report = look()
    lines = [line for line in said(report) if "block of format" in line]
    assert lines == [
        f"dataset.json: nnunet_dml in {path}: expected a block of format 1, found 2. "
        "Convert the data set again, or update nnunet-dml."
    ]
    assert "raters: 4 cases with 3 raters" in said(report, "ok")
    world.plans("explicit", labels={"source": "uniform"})
    assert look(plans_name="explicit").steps


def test_what_the_trainer_refuses_is_named(world):
    world.plans("lovasz", loss={"overlap": "lovasz"})
    text = "\n".join(said(look(plans_name="lovasz")))
    assert "patches: plans lovasz: expected hard labels with loss.overlap=lovasz" in text


def test_damaged_files_of_nnunet_are_named(world):
    path = world.arrays / "a.pkl"
    path.write_bytes(path.read_bytes()[:20])
    text = "\n".join(said(look()))
    assert "nnUNetPlans_2d/a.*: expected whole files of a case that nnU-Net has preprocessed" in text


def test_without_the_raw_data(world, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    report = look()
    assert said(report) == []
    assert "no raw data set at hand" in "\n".join(said(report, "note"))
    assert shares(report)["loaded patches"] > 0


def test_an_unknown_data_set(world):
    assert "expected a data set 7, found Dataset501_Test" in "\n".join(said(examine("7")))


@pytest.mark.parametrize("quick", [False, True])
def test_a_name_that_is_no_utf8_is_one_line(world, quick):
    bad = world.raw / "labelsTr" / os.fsdecode(b"case\xff.nii.gz")
    bad.write_bytes(world.consensus("a").read_bytes())
    lines = said(look(quick=quick))
    assert len(lines) == (not quick)
    assert all(r"case\udcff.nii.gz': expected a path in UTF-8" in line for line in lines), lines
