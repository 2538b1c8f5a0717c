"""A teacher on another grid than its student's: `nnunet-dml teach`, and a training from its maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_dml.labels.storage import quantise, verify_soft_map
from nnunet_dml.nnunet.map_making import to_grid
from nnunet_dml.nnunet.teacher_maps import SCALE
from tests.nnunet import mode_helpers as here
from tests.nnunet.offline_world import SETS, TEACHER, build, by_nnunet, make, maps_of, teach
from tests.nnunet.test_sources import refusal

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # nnU-Net's own code warns


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The data sets, made when they are asked for."""
    with here.made_when_asked(tmp_path_factory.mktemp("offline"), make) as folders:
        yield folders


@pytest.mark.parametrize("number", SETS)
def test_without_calibration_the_maps_are_what_nnunet_predicts(world, number):
    teach(world, "--calibration", "none", number=number)
    for case in ("case0", "case4"):
        probs = by_nnunet(world, number, case)
        if number == 970:
            probs = probs[1:]
        stored = verify_soft_map(maps_of(world, "plain", number) / f"{case}.b2nd")
        assert stored.scale == SCALE
        np.testing.assert_allclose(stored.load(), probs, atol=1 / SCALE)


def test_regions_may_overlap():
    halves = np.full((2, 1, 2, 2), 0.9, np.float32)
    assert quantise(halves, bits=16, exclusive=False).min() == round(0.9 * SCALE)
    assert quantise(halves, bits=16)[:, 0, 0, 0].sum() == SCALE
    properties = {"spacing": [999.0, 1.0, 1.0]}

    class Same:
        transpose_forward, spacing = [0, 1, 2], [1.0, 1.0]

        @staticmethod
        def resampling_fn_probabilities(array, *_):
            return array

    kept = to_grid(halves, properties, (1, 2, 2), Same, Same, exclusive=False)
    np.testing.assert_array_equal(kept, halves)
    shared = to_grid(halves, properties, (1, 2, 2), Same, Same)
    np.testing.assert_allclose(shared, 0.5)


def test_kde_only_changes_voxels_near_boundaries_and_wrong_ones(world, capsys):
    teach(world, "--calibration", "none")
    teach(world, "--calibration", "kde", "--bandwidth", "0.05", name="kde")
    said = capsys.readouterr().out
    assert "fold 0: 5 made, 0 kept" in said
    assert "calibrated" in said.splitlines()[-2]
    record = json.loads((maps_of(world, "kde") / "teacher.json").read_text())
    assert record["ece_calibrated"] < record["ece"]
    plain, kde = (verify_soft_map(maps_of(world, name) / "case1.b2nd").load() for name in ("plain", "kde"))
    changed = (np.abs(plain - kde) > 1e-3).any(0)
    assert changed.any()
    labels = _consensus(world, "case1")
    background = np.stack([1 - plain.sum(0), *plain])
    wrong = background.argmax(0) != labels
    padded = np.pad(labels, ((0, 0), (1, 1), (1, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    boundary = windows.max((-1, -2)) != windows.min((-1, -2))
    assert not (changed & ~(wrong | boundary)).any()


def _consensus(world, case):
    path = world.raw / world.dataset(970) / "labelsTr" / f"{case}.nii.gz"
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[None]


def test_what_is_up_to_date_is_kept_and_the_rest_made_the_same_again(world, capsys):
    teach(world, "--calibration", "kde", name="again")
    folder = maps_of(world, "again")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "case2.b2nd").write_bytes(before["case2.b2nd"][:-20])
    (folder / "case3.b2nd").unlink()
    record = json.loads(before["teacher.json"])
    capsys.readouterr()
    teach(world, "--calibration", "kde", name="again")
    assert "2 made, 3 kept" in capsys.readouterr().out
    assert json.loads((folder / "teacher.json").read_text()) == record
    for name in ("case2.b2nd", "case3.b2nd", "case0.b2nd"):
        assert (folder / name).read_bytes() == before[name], name
    teach(world, "--calibration", "kde", "--bandwidth", "0.1", name="again")
    assert "5 made, 0 kept" in capsys.readouterr().out


@pytest.mark.parametrize("calibration", ["kde", "temperature"])
def test_the_parameter_is_chosen(world, calibration, capsys):
    parameter = {"kde": "bandwidth", "temperature": "temperature"}[calibration]
    more = ["--set", f"teacher.{parameter}=auto"]
    teach(world, "--calibration", calibration, *more, name=calibration)
    record = json.loads((maps_of(world, calibration) / "teacher.json").read_text())
    assert record["parameter"] > 0
    assert f"The teacher's {parameter} is {record['parameter']:.4g}" in "".join(capsys.readouterr())


class TestTraining:
    @pytest.mark.parametrize("number", SETS)
    @pytest.mark.parametrize("source", ["hard", "uniform", "random"])
    @pytest.mark.parametrize("deep", [True, False])
    def test_what_reaches_the_loss(self, world, number, source, deep):
        teach(world, "--calibration", "none", number=number)
        groups = {"labels": {"source": source}, "loss": {"deep_supervision": deep}}
        trainer = build(world, number, **groups)
        batch = next(trainer.dataloader_val)  # no augmentation; nnU-Net pads the 32 × 32 images to its patch
        probs, labels, _ = trainer._see(trainer._on_device(dict(batch)))
        (case,) = {str(it) for it in batch["keys"]}
        expected = torch.from_numpy(by_nnunet(world, number, case)[:, 0])
        found = torch.nn.functional.unfold(probs[:1], 32).view(len(expected), 32, 32, -1)
        nearest = (found - expected[..., None]).abs().amax((0, 1, 2)).min()
        assert nearest < 1e-3
        assert labels.shape == probs.shape
        if source != "uniform":
            assert set(labels.unique().tolist()) <= {0.0, 1.0}
        else:
            assert ((labels - 0.5).abs() < 0.01).any()
        trainer.on_train_epoch_start()
        loss = trainer.train_step(next(trainer.dataloader_train))
        assert np.isfinite(loss["loss"])
        with torch.no_grad():
            assert np.isfinite(trainer.validation_step(next(trainer.dataloader_val))["loss"])

    def test_maps_are_not_calibrated_again(self, world):
        teach(world)
        trainer = build(world)
        probs, *_ = trainer._see(trainer._on_device(next(trainer.dataloader_train)))
        trainer.on_train_epoch_start()
        reached = []
        forward = trainer.loss.teacher.forward
        trainer.loss.teacher.forward = lambda out, target, *more: (
            reached.append(target),
            forward(out, target, *more),
        )[1]
        with trainer._taught(batch := trainer._on_device(next(trainer.dataloader_train))) as seen:
            trainer.loss(trainer.network(batch["data"]), batch["target"])
        assert reached[0] is seen[0]
        assert seen[1] is seen[0]
        assert probs.shape == seen[0].shape

    def test_maps_made_with_other_labels_or_another_teacher(self, world, capsys):
        teach(world, name="stale")
        folder = maps_of(world, "stale")
        label = world.raw / world.dataset(970) / "labelsTr" / "case1.nii.gz"
        kept = label.read_bytes()
        image = sitk.ReadImage(str(label))
        sitk.WriteImage(image * 0, str(label))
        try:
            message = refusal(capsys, lambda: build(world, name="stale"))
        finally:
            label.write_bytes(kept)
        assert "found case1 (stale: labels changed). Run `nnunet-dml teach" in message
        teach(world, "--bandwidth", "0.1", name="mixed")
        (folder / "case2.b2nd").write_bytes((maps_of(world, "mixed") / "case2.b2nd").read_bytes())
        message = refusal(capsys, lambda: build(world, name="stale"))
        assert "found case2 (stale: options changed)" in message

    def test_maps_of_a_teacher_that_was_trained_anew(self, world, capsys):
        teach(world, "--calibration", "none", name="old")
        checkpoint = world.results / world.dataset(970) / TEACHER / "fold_0" / "checkpoint_final.pth"
        kept = checkpoint.read_bytes()
        checkpoint.write_bytes(kept + b"0")
        try:
            message = refusal(capsys, lambda: build(world, name="old"))
            assert "expected maps of the teacher as it is, found ones of an earlier training of" in message
            assert f"--name old --teacher {world.dataset(970)}/{TEACHER} --calibration none`" in message
            checkpoint.rename(checkpoint.with_name("elsewhere.pth"))
            build(world, name="old")  # who has the maps needs no teacher
        finally:
            checkpoint.with_name("elsewhere.pth").unlink(missing_ok=True)
            checkpoint.write_bytes(kept)

    def test_the_whole_way(self, world, capsys):
        teach(world)
        here.command("configure", "-d", 970, "-p", "fine", "-o", "taught", "--set", "teacher.maps=plain")
        here.train(970, "2d", "taught", "nnUNetTrainerDML_KD")
        log = capsys.readouterr().out
        assert f"Taught by the maps plain of {world.dataset(970)}/{TEACHER}, calibration: kde." in log
        model = world.results / world.dataset(970) / "nnUNetTrainerDML_KD__taught__2d" / "fold_0"
        assert (model / "validation" / "summary.json").is_file()

    def test_maps_are_missing_or_damaged(self, world, capsys):
        message = refusal(capsys, lambda: build(world, name="absent"))
        assert (
            "teacher_absent_fold_0/teacher.json: expected a file, found none. Run `nnunet-dml teach"
            in message
        )
        teach(world, name="holes")
        (maps_of(world, "holes") / "case1.b2nd").unlink()
        (maps_of(world, "holes") / "case2.b2nd").write_bytes(b"nothing")
        message = refusal(capsys, lambda: build(world, name="holes"))
        assert "found case1 (missing), case2 (damaged)" in message

    def test_maps_of_another_split(self, world, capsys):
        teach(world, name="split")
        here.edit_json(maps_of(world, "split") / "teacher.json", lambda it: it.update(held_back=["case9"]))
        message = refusal(capsys, lambda: build(world, name="split"))
        assert "not trained on the validation cases of the student" in message

    def test_maps_and_options_of_a_model(self, world, capsys):
        message = refusal(capsys, lambda: build(world, teacher={"bandwidth": 0.1}, start=False))
        assert "teacher.maps is set, and teacher.bandwidth" in message


class TestRefusals:
    def test_a_teacher_that_has_seen_the_validation_cases(self, world, capsys):
        teach(world, "-f", "1", "--teacher-folds", "0", name="leak", status=2)
        assert "not trained on the validation cases of the student (fold 1 of" in capsys.readouterr().err
        assert not maps_of(world, "leak", fold=1).exists()

    def test_a_model_that_was_taught_by_these_maps(self, world, capsys):
        teach(world, name="swapped")
        command = ("configure", "-d", 970, "-p", "fine", "-o", "swapped", "--set", "teacher.maps=swapped")
        here.command(*command)
        here.train(970, "2d", "swapped", "nnUNetTrainerDML_KD")
        teach(world, "--teacher", "nnUNetTrainerDML_KD__swapped__2d", name="swapped", status=2)
        assert "taught by the maps swapped: teacher and student are swapped" in capsys.readouterr().err

    def test_another_data_set(self, world, capsys):
        world.dataset(971)
        other = f"{world.dataset(971)}/{TEACHER}"
        teach(world, "--teacher", other, name="other", status=2)
        expected = f"expected a teacher of {world.dataset(970)}, found one of {world.dataset(971)}"
        assert expected in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            (("-f", "7"), "-f: expected folds 0 to 4 of"),
            (("-f", "x"), "-f: expected numbers of folds, or all, found x"),
            (("--name", "a/b"), "--name: expected letters"),
            (("--teacher", "nobody"), "--teacher nobody: expected a model's folder"),
            (("--bandwidth", "0"), "bad value 0 of teacher.bandwidth"),
            (("-c", "3d_fullres"), "expected a configuration 3d_fullres"),
            (("-p", "nobody"), "nobody.json"),
            (("--set", "teacher.ce_teacher=1"), "found teacher.ce_teacher"),
            (("--set", "loss.gamma=2"), "--set: expected what teaching reads (teacher.model"),
        ],
    )
    def test_bad_arguments(self, world, capsys, more, words):
        teach(world, *more, name="refused", status=2)
        message = capsys.readouterr().err
        assert words in message
        assert "Traceback" not in message
        assert not maps_of(world, "refused").exists()

    def test_a_fold_without_training_cases(self, world, capsys):
        splits = world.preprocessed / world.dataset(970) / "splits_final.json"
        before = splits.read_text()
        first, *others = json.loads(before)
        splits.write_text(json.dumps([{"train": [], "val": first["val"]}, *others]))
        try:
            teach(world, name="empty", status=2)
        finally:
            splits.write_text(before)
        message = "splits_final.json: expected training cases in fold 0, found none."
        assert message in capsys.readouterr().err
        assert not maps_of(world, "empty").exists()

    def test_an_image_is_gone(self, world, capsys):
        image = world.raw / world.dataset(970) / "imagesTr" / "case3_0000.nii.gz"
        hidden = image.with_name("hidden")
        image.rename(hidden)
        try:
            teach(world, name="gone", status=2)
        finally:
            hidden.rename(image)
        assert "case3" in capsys.readouterr().err
        assert not list(Path(maps_of(world, "gone")).glob("*"))
