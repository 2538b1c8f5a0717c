"""Making, keeping and refusing soft maps of a small data set whose arrays are saved without nnU-Net's planning."""

from __future__ import annotations

import json
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_dml._checks import InputError
from nnunet_dml._files import _MACHINE
from nnunet_dml.labels.storage import open_soft_map
from nnunet_dml.nnunet import soft_maps
from nnunet_dml.nnunet.preprocess import preprocess
from nnunet_dml.nnunet.targets import TargetLayout

NAME = "Dataset501_Test"
RATERS = ("r1", "r2", "r3")
BOX = [[0, 1], [1, 5], [0, 6]]
LINEAR = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
PLANS = {
    "dataset_name": NAME,
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "spacing": [1.0, 1.0],
            "patch_size": [4, 6],
            "architecture": {},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": LINEAR,
        }
    },
}


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


class World:
    """Cases a (4 × 6 voxels in the bounding box) and b (8 × 6, resampled from 4 × 6), three raters each."""

    def __init__(self, root):
        self.raw, self.preprocessed = root / "raw" / NAME, root / "preprocessed" / NAME
        self.arrays = self.preprocessed / "nnUNetPlans_2d"
        self.arrays.mkdir(parents=True)
        self.plans = self.preprocessed / "nnUNetPlans.json"
        self.plans.write_text(json.dumps(PLANS))
        cases = {case: {"raters": list(RATERS)} for case in "ab"}
        self.described = {
            "labels": {"background": 0, "core": 1},
            "file_ending": ".nii.gz",
            "nnunet_dml": {"raters": list(RATERS), "cases": cases},
        }
        rng = np.random.default_rng(0)
        for case, rows in (("a", 4), ("b", 8)):
            votes = rng.integers(0, 2, (3, 1, 6, 6)).astype(np.uint8)
            write(self.raw / "labelsTr" / f"{case}.nii.gz", (votes.sum(0) > 1).astype(np.uint8))
            for rater, mask in zip(RATERS, votes, strict=True):
                write(self.rater(case, rater), mask)
            spacing = [1.0, 1.0 if case == "a" else 2.0, 1.0]
            properties = {
                "bbox_used_for_cropping": BOX,
                "spacing": spacing,
                "shape_before_cropping": (1, 6, 6),
            }
            data, seg = np.zeros((1, 1, rows, 6), np.float32), np.zeros((1, 1, rows, 6), np.int16)
            whole = dict.fromkeys(("chunks", "blocks", "chunks_seg", "blocks_seg"), data.shape)
            nnUNetDatasetBlosc2.save_case(data, seg, properties, str(self.arrays / case), **whole)
        self.describe()

    def describe(self, **changes):
        self.described |= changes
        (self.raw / "dataset.json").write_text(json.dumps(self.described))

    def rater(self, case, rater):
        return self.raw / "ratersTr" / case / f"{rater}.nii.gz"

    def maps(self, fusion="uniform"):
        return soft_maps.folder(self.preprocessed, "nnUNetPlans_2d", fusion)

    def run(self):
        (row,) = preprocess("501", fusions=["uniform"], num_processes=1)
        return row

    def train(self, *, num_foreground=1, source="uniform", ignore=None, **plans):
        """What a trainer checks before its first epoch."""
        trainer = SimpleNamespace(
            plans_manager=PlansManager(PLANS | plans),
            source=source,
            dataset_json=self.described,
            maps_folder=self.maps(source),
            preprocessed_dataset_folder=str(self.arrays),
            configuration_name="2d",
            layout=TargetLayout(num_foreground, None, ignore),
        )
        return soft_maps.check_for_training(trainer, ["a", "b"])

    def refuses(self, *words, call=None):
        with pytest.raises(InputError) as caught:
            (call or self.run)()
        lines = caught.value.problems
        assert all("\n" not in line for line in lines)
        for word in words:
            assert any(word in line for line in lines), (word, lines)
        return lines


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return World(tmp_path)


def test_made_then_kept(world):
    assert world.run()["cases"] == {"missing": 2}
    assert world.run()["cases"] == {"kept": 2}


def test_lost_raters_are_noticed_before_any_map_is_touched(world):
    world.run()
    before = {path: path.read_bytes() for path in world.maps().iterdir()}
    world.rater("a", "r2").unlink()
    (line,) = world.refuses(
        "ratersTr/a: expected the raters r1, r2, r3 that dataset.json lists for a, found r1, r3."
    )
    assert "Restore the masks" in line
    shutil.rmtree(world.raw / "ratersTr")
    assert len(world.refuses("lists for a, found none", "lists for b, found none")) == 2
    assert {path: path.read_bytes() for path in world.maps().iterdir()} == before


def test_an_added_rater_is_noticed(world):
    shutil.copy(world.rater("a", "r1"), world.rater("a", "r4"))
    world.refuses("lists for a, found r1, r2, r3, r4")


def test_training_does_without_the_masks_but_not_with_others(world, monkeypatch):
    world.run()
    share = world.train()
    world.rater("a", "r2").unlink()
    assert world.train() == share
    shutil.rmtree(world.raw / "ratersTr")
    assert world.train() == share
    for rater in RATERS:
        write(world.rater("b", rater), np.zeros((1, 6, 6), np.uint8))
    world.refuses("found b (stale: sources changed)", call=world.train)
    monkeypatch.delenv("nnUNet_raw")
    assert world.train() == share


def test_raters_that_were_left_out_on_purpose_make_maps_stale(world):
    world.run()
    older = json.loads(json.dumps(world.described))
    world.rater("a", "r2").unlink()
    cases = world.described["nnunet_dml"]["cases"] | {"a": {"raters": ["r1", "r3"]}}
    world.describe(nnunet_dml={"cases": cases})
    world.described = older  # as in nnUNet_preprocessed
    world.refuses("found a (stale: sources changed)", call=world.train)


def test_another_label_or_another_order_of_axes_makes_maps_stale(world):
    world.run()
    world.refuses(
        "a (stale: foreground changed), b (stale: foreground changed)",
        call=partial(world.train, num_foreground=2),
    )
    turned = partial(world.train, transpose_forward=[0, 2, 1])
    world.refuses("a (stale: transpose changed)", call=turned)
    world.describe(labels={"background": 0, "core": 1, "rim": 2})
    assert world.run()["cases"] == {"stale: foreground changed": 2}
    assert open_soft_map(world.maps() / "a.b2nd").array.shape == (2, 1, 4, 6)


def test_own_maps_follow_what_the_consensus_ignores(world):
    world.describe(labels={"background": 0, "core": 1, "ignore": 2})
    for case in "ab":
        write(world.raw / "softlabelsTr" / f"{case}.nii.gz", np.full((1, 6, 6), 0.5, np.float32))
    make = partial(preprocess, "501", fusions=["file"], num_processes=1)
    train = partial(world.train, source="file", ignore=2)
    assert [make()[0]["cases"] for _ in range(2)] == [{"missing": 2}, {"kept": 2}]
    assert train() == 1
    consensus = np.zeros((1, 6, 6), np.uint8)
    consensus[0, 2] = 2
    write(world.raw / "labelsTr" / "a.nii.gz", consensus)
    world.refuses("found a (stale: sources changed)", call=train)
    assert make()[0]["cases"] == {"kept": 1, "stale: sources changed": 1}
    stored = open_soft_map(world.maps("file") / "a.b2nd").array[:]
    assert stored[1, 0].tolist() == [[0] * 6, [255] * 6, [0] * 6, [0] * 6]
    (world.raw / "labelsTr" / "a.nii.gz").unlink()
    world.refuses("labelsTr: expected a mask of every case, found no a.nii.gz", call=make)


def test_shares_of_fractional_voxels_are_those_of_one_region(world):
    row = world.run()
    found = {case: open_soft_map(world.maps() / f"{case}.b2nd") for case in "ab"}
    counted = {}
    for case, opened in found.items():
        votes = np.stack([sitk.GetArrayFromImage(sitk.ReadImage(str(world.rater(case, r)))) for r in RATERS])
        mean = votes.mean(0)[:, 1:5]
        assert opened.metadata["fractional_raw"] == ((mean > 0) & (mean < 1)).mean()
        stored = opened.array[:]
        counted[case] = ((stored > 0) & (stored < 255)).sum()
        assert opened.metadata["fractional"] == counted[case] / stored.size
        assert opened.metadata["voxels"] == stored.size == {"a": 24, "b": 48}[case]
    assert found["a"].metadata["fractional"] == found["a"].metadata["fractional_raw"]
    expected = sum(counted.values()) / (24 + 48)
    assert row["fractional"] == pytest.approx(expected)
    assert world.train() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"background": 0, "whole": [1, 3], "core": 3}, "expected labels 0, 1, 2, …, found 0, 1, 3"),
        ({"core": 1}, "expected `labels` as nnU-Net wants them, found RuntimeError"),
        ([], "expected `labels` as nnU-Net"),
        (None, "expected `labels` as nnU-Net"),
    ],
)
def test_labels_that_cannot_be_soft_are_refused_before_any_work(world, labels, words):
    world.describe(labels=labels, regions_class_order=[1, 2])
    (line,) = world.refuses(words)
    assert "dataset.json" in line
    assert not world.maps().exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"labels": {"background": 0, "core": 1}}'])
def test_a_damaged_dataset_json(world, text):
    (world.raw / "dataset.json").write_text(text)
    (line,) = world.refuses("dataset.json: expected")
    assert line.endswith("Mend it or convert the data set again.")


@pytest.mark.parametrize(
    "missing", ["all", "configurations", "image_reader_writer", "transpose_forward", "2d"]
)
def test_damaged_plans(world, missing):
    plans = {key: value for key, value in PLANS.items() if key != missing}
    if missing == "2d":
        plans["configurations"] = {"2d": {"inherits_from": "3d_fullres"}}
    world.plans.write_text("{" if missing == "all" else json.dumps(plans))
    (line,) = world.refuses("nnUNetPlans.json: expected")
    assert line.endswith("Run `nnUNetv2_plan_and_preprocess -d 501`.")


@pytest.mark.parametrize("name", ["a.pkl", "a.b2nd", "a_seg.b2nd"])
@pytest.mark.parametrize("left", [0, 0.7])
def test_damaged_files_of_nnunet(world, name, left):
    world.run()
    path = world.arrays / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * left)])
    for call in (world.run, world.train):
        (line,) = world.refuses("nnUNetPlans_2d/a.*: expected whole files of a case", call=call)
        assert line.endswith("Run `nnUNetv2_preprocess -d 501 -c 2d`.")


def test_temporary_files_of_running_processes_stay(world):
    world.run()
    dead, living = (world.maps() / f".tmp-{_MACHINE}-{pid}-abcdefgh-a.b2nd" for pid in (2**22 + 1, 1))
    for path in (dead, living):
        path.touch()
    world.run()
    assert not dead.exists()
    assert living.exists()
