"""Unlabelled images: found, preprocessed as nnU-Net does it, kept up to date; everything that can be wrong with them."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_dml.cli.main import main
from nnunet_dml.nnunet import trainers
from nnunet_dml.nnunet.unlabelled import FOLDER, channel_count
from tests.nnunet import mode_helpers as here
from tests.nnunet.mode_helpers import write_image
from tests.nnunet.ssl_world import build, make_world, scene


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two channels, the first normalised within the image's mask; 5 labelled and 3 unlabelled cases."""
    with pytest.MonkeyPatch.context() as patch:
        yield make_world(
            patch,
            tmp_path_factory.mktemp("unlabelled"),
            "Dataset951_Unlabelled",
            labelled=5,
            unlabelled=3,
            channels=2,
        )


@pytest.fixture
def world(made, tmp_path, monkeypatch):
    """A copy of it to break."""
    copy = SimpleNamespace(**vars(made))
    for name in ("raw", "preprocessed", "results"):
        shutil.copytree(getattr(made, name), tmp_path / name)
        setattr(copy, name, tmp_path / name)
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    copy.images = copy.raw / copy.name / FOLDER
    copy.out = copy.preprocessed / copy.name / "nnUNetPlans_2d_unlabelled"
    return copy


def preprocess(world, *more):
    return main(["preprocess", "-d", str(world.number), "-c", "2d", "-np", "1", *more])


def refused(capsys, action):
    with pytest.raises(SystemExit) as stop:
        action()
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # nnU-Net's own code warns
class TestPreprocessing:
    def test_it_is_what_nnunet_makes_of_labelled_images(self, world):
        """A labelled case, offered without its label under another name, becomes the same arrays."""
        for channel in range(2):
            source = world.raw / world.name / "imagesTr" / f"case1_{channel:04d}.nii.gz"
            shutil.copy(source, world.images / f"twin_{channel:04d}.nii.gz")
        assert preprocess(world) == 0
        stock_folder = str(world.preprocessed / world.name / "nnUNetPlans_2d")
        image, labels, _, stock = infer_dataset_class(stock_folder)(stock_folder, ["case1"]).load_case(
            "case1"
        )
        own, inside, _, properties = infer_dataset_class(str(world.out))(str(world.out), ["twin"]).load_case(
            "twin"
        )
        np.testing.assert_array_equal(own[:], image[:])
        np.testing.assert_array_equal(inside[:] < 0, labels[:] < 0)
        assert set(np.unique(inside[:])) == {-1, 0}
        assert properties["class_locations"] == {}
        for key in ("bbox_used_for_cropping", "shape_before_cropping", "spacing"):
            assert properties[key] == stock[key]

    def test_only_nnunets_own_files_are_there(self, world):
        names = {path.name for path in world.out.iterdir()}
        assert names == {f"case{i}{end}" for i in (5, 6, 7) for end in (".b2nd", "_seg.b2nd", ".pkl")}
        assert not (world.preprocessed / world.name / "nnUNetPlans_2d_soft").exists()

    def test_what_is_up_to_date_is_kept_and_the_rest_made_again(self, world, capsys):
        before = (world.out / "case5.b2nd").stat().st_mtime_ns
        (world.out / "case6.pkl").unlink()
        with (world.out / "case7.b2nd").open("r+b") as file:
            file.seek(200)
            file.write(b"\xff\x00\xff\x00")
        assert preprocess(world) == 0
        assert "unlabelled images: 2 made (1 damaged, 1 missing), 1 kept; in " in capsys.readouterr().out
        assert (world.out / "case5.b2nd").stat().st_mtime_ns == before
        write_image(world.images / "case5_0001.nii.gz", scene(40)[0][0])
        assert preprocess(world) == 0
        assert "1 made (1 stale: image changed), 2 kept" in capsys.readouterr().out
        with (world.images / "case6_0000.nii.gz").open("r+b") as file:
            file.seek(4)  # the time in the header of gzip: another file of the same size
            file.write(b"abcd")
        assert preprocess(world) == 0
        assert "1 made (1 stale: image changed), 2 kept" in capsys.readouterr().out
        here.edit_json(
            world.preprocessed / world.name / "nnUNetPlans.json",
            lambda plans: plans["configurations"]["2d"].update(spacing=[2.0, 2.0]),
        )
        assert preprocess(world) == 0
        assert "3 made (3 stale: spacing changed), 0 kept" in capsys.readouterr().out
        assert preprocess(world, "--overwrite") == 0
        assert "3 made (3 overwritten), 0 kept" in capsys.readouterr().out

    def test_cases_whose_images_are_gone_go(self, world, capsys):
        for channel in range(2):
            (world.images / f"case6_{channel:04d}.nii.gz").unlink()
        assert preprocess(world) == 0
        assert "1 cases removed whose images are gone: case6" in capsys.readouterr().out
        assert not list(world.out.glob("case6*"))

    def test_soft_maps_are_made_where_they_are_asked_for(self, world, capsys):
        assert preprocess(world, "--fusion", "majority") == 0
        out = capsys.readouterr().out
        assert "2d, majority: 5 made" in out
        assert "2d, unlabelled images: 0 made, 3 kept" in out or "unlabelled images: 3 kept" in out

    def test_bad_images_are_all_named_and_nothing_is_half_written(self, world, capsys, monkeypatch):
        before = {path.name: path.read_bytes() for path in world.out.iterdir()}
        damaged = world.images / "case5_0000.nii.gz"
        damaged.write_bytes(damaged.read_bytes()[:-50])
        read = SimpleITKIO.read_images

        def with_infinity(reader, paths):  # ITK itself reads those of NIfTI as 0
            image, properties = read(reader, paths)
            image[0, 0, 3, 3] = np.inf if "case6" in paths[0] else 0
            return image[:1] if "case9" in paths[0] else image, properties

        monkeypatch.setattr(SimpleITKIO, "read_images", with_infinity)
        for channel in range(2):
            write_image(world.images / f"case6_{channel:04d}.nii.gz", scene(60)[0][0])
            write_image(world.images / f"case9_{channel:04d}.nii.gz", scene(9)[0][0])
        write_image(world.images / "case7_0001.nii.gz", scene(7, side=20)[0][0])
        for channel in range(2):
            write_image(world.images / f"case8_{channel:04d}.nii.gz", np.zeros((32, 32), np.float32))
        assert preprocess(world) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if FOLDER in line]
        assert len(lines) == 5
        assert "case5_0000.nii.gz: expected a whole nii.gz file" in lines[0]
        assert "case6_0000.nii.gz: expected finite numbers, found 1 voxels that are NaN" in lines[1]
        assert "expected images of case7 that nnU-Net can read" in lines[2]
        assert "case8_0000.nii.gz: expected an image, found nothing but 0" in lines[3]
        assert "case9_0000.nii.gz: expected 2 channels, as in dataset.json, found 1" in lines[4]
        assert {path.name: path.read_bytes() for path in world.out.iterdir()} == before

    def test_a_killed_run_leaves_nothing_that_looks_whole(self, world, capsys, monkeypatch):
        for path in world.out.iterdir():
            path.unlink()
        calls = []

        def stop_in_the_second(self, target):
            calls.append(target)
            if len(calls) == 5:  # the second case's seg: its image is in place
                raise KeyboardInterrupt
            return rename(self, target)

        rename = Path.replace
        monkeypatch.setattr(Path, "replace", stop_in_the_second)
        assert preprocess(world) == 130
        monkeypatch.undo()
        for name in ("raw", "preprocessed", "results"):
            monkeypatch.setenv(f"nnUNet_{name}", str(getattr(world, name)))
        assert [path.stem for path in world.out.glob("*.pkl")] == ["case5"]
        capsys.readouterr()
        assert preprocess(world) == 0
        assert "2 made (2 missing), 1 kept" in capsys.readouterr().out
        self.test_only_nnunets_own_files_are_there(world)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # nnU-Net's own code warns
class TestWhatStopsATraining:
    command = "`nnunet-dml preprocess -d Dataset951_Unlabelled -c 2d -p tiny`"

    def start(self, world):
        build(world, start=False).on_train_start()

    def test_no_unlabelled_images(self, world, capsys, monkeypatch):
        shutil.rmtree(world.out)
        message = refused(capsys, lambda: self.start(world))
        assert "found case5 (missing), case6 (missing), case7 (missing)" in message
        assert self.command in message
        shutil.rmtree(world.images)
        message = refused(capsys, lambda: self.start(world))
        assert "expected unlabelled images CASE_0000.nii.gz" in message
        assert "found no folder" in message
        monkeypatch.delenv("nnUNet_raw")
        message = refused(capsys, lambda: self.start(world))
        assert f"expected unlabelled cases, made of {FOLDER} in the raw data set, found none" in message
        assert self.command in message

    def test_without_the_raw_data_what_was_made_is_taken(self, world, monkeypatch):
        monkeypatch.delenv("nnUNet_raw")
        trainer = build(world)
        assert trainer.unlabelled_cases == ["case5", "case6", "case7"]

    def test_cases_that_do_not_fit(self, world, capsys):
        write_image(world.images / "case5_0000.nii.gz", scene(5)[0][0].astype(np.float64))
        (world.out / "case6.b2nd").write_bytes(b"")
        for channel in range(2):
            (world.images / f"case7_{channel:04d}.nii.gz").unlink()
        message = refused(capsys, lambda: self.start(world))
        assert (
            "case5 (stale: image changed), case6 (damaged), case7 (no longer in imagesUnlabelledTr)"
            in message
        )

    def test_cases_made_for_other_plans(self, world, capsys):
        record = world.out / "case6.pkl"
        content = pickle.loads(record.read_bytes())
        content["nnunet_dml"]["made_for"]["normalization_schemes"] = ["CTNormalization"] * 2
        record.write_bytes(pickle.dumps(content))
        message = refused(capsys, lambda: self.start(world))
        assert "found case6 (stale: normalization_schemes changed)" in message

    def test_a_labelled_case(self, world, capsys, monkeypatch):
        for file in ("case1.b2nd", "case1_seg.b2nd", "case1.pkl"):
            shutil.copy(world.out / file.replace("1", "5"), world.out / file)
        record = pickle.loads((world.out / "case1.pkl").read_bytes())
        record["nnunet_dml"]["files"] = {
            name.replace("5", "1"): its for name, its in record["nnunet_dml"]["files"].items()
        }
        (world.out / "case1.pkl").write_bytes(pickle.dumps(record))
        monkeypatch.delenv("nnUNet_raw")
        message = refused(capsys, lambda: self.start(world))
        assert "expected no case that is labelled, found case1" in message

    def test_a_cascade(self, world, capsys):
        folder = world.preprocessed / world.name
        here.edit_json(
            folder / "tiny.json",
            lambda plans: plans["configurations"].update(
                low={"inherits_from": "2d", "next_stage": "2d_cascade"},
                **{"2d_cascade": {"inherits_from": "2d", "previous_stage": "low"}},
            ),
        )
        world.configuration = "2d_cascade"
        message = refused(capsys, lambda: build(world, start=False))
        assert "expected a configuration without a previous stage for nnUNetTrainerDML_SSL" in message
        assert "found 2d_cascade. Unlabelled cases have no predictions of it." in message

    def test_options_of_another_trainer(self, world, capsys):
        for name in ("nnUNetTrainerDML", "nnUNetTrainerDML_KD"):
            message = refused(
                capsys, lambda name=name: build(world, name, start=False, unlabelled={"ema": 0.5})
            )
            assert f"{name} reads the options labels, loss" in message
        assert trainers.nnUNetTrainerJML_SSL.default_options["loss"] == {"overlap": "jml"}


def test_channels_by_either_name():
    assert channel_count({"channel_names": {"0": "MR", "1": "CT"}}) == 2
    assert channel_count({"modality": {"0": "MR"}}) == 1
