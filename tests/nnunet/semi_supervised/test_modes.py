"""Semi-supervised training in nnU-Net's modes: regions, ignored voxels, cascades, workers, several raters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import set_folders
from tests.nnunet import mode_helpers as here
from tests.nnunet.semi_supervised.helpers import epoch, equal, seen_by_loss, weights_of
from tests.nnunet.ssl_world import SIDE, build, enter, make_world
from tests.nnunet.test_sources import masks_of, votes_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # nnU-Net's own code warns


@pytest.fixture(scope="module")
def made_with_ignored(tmp_path_factory):
    labels = {"background": 0, "rim": 1, "core": 2, "ignore": 3}
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("ignore")
        yield make_world(patch, folder, "Dataset954_Ignore", unlabelled=2, labels=labels, ignored=True)


@pytest.fixture
def ignore_world(made_with_ignored, monkeypatch):
    """Labels of which a third is ignored."""
    return enter(monkeypatch, made_with_ignored)


class TestModes:
    @pytest.mark.parametrize(
        "groups",
        [
            {"labels": {"smoothing": "off"}},
            {"labels": {"smoothing": "all", "epsilon": 0.1}},
            {"loss": {"deep_supervision": False}},
            {"labels": {"smoothing": "off"}, "loss": {"active": "label", "log": True, "background": True}},
            {
                "unlabelled": {
                    "labels": "soft",
                    "confidence": 0.9,
                    "intensity": 0,
                    "cutmix": 1.0,
                    "batch_size": 1,
                }
            },
        ],
    )
    def test_options(self, world, groups):
        trainer = build(world, "nnUNetTrainerJML_SSL", **groups)
        before = weights_of(trainer.network)
        assert np.isfinite(epoch(trainer)).all()
        assert not equal(weights_of(trainer.network), before)

    @pytest.mark.parametrize("ignore", [False, True])
    def test_regions(self, request, ignore):
        labels = {"background": 0, "whole": [1, 2], "core": [2]} | ({"ignore": 3} if ignore else {})
        described = {"labels": labels, "regions_class_order": [1, 2]}
        trainer = build(
            request.getfixturevalue("ignore_world" if ignore else "world"), described_as=described
        )
        calls = seen_by_loss(trainer)
        assert np.isfinite(epoch(trainer)).all()
        fractions = calls[0][1][1]
        assert fractions.shape[1] == 2
        assert (fractions.sum(1) - 1).abs().max() > 0.01  # no classes that exclude each other

    def test_an_ignore_label_makes_labelled_voxels_not_count_where_they_are_mixed_in(self, ignore_world):
        trainer = build(ignore_world, unlabelled={"cutmix": 1.0})
        calls = seen_by_loss(trainer)
        trainer.on_train_epoch_start()
        for _ in range(5):
            assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
        valid = torch.cat([target[2] for _, target in calls])
        assert 0 < (~valid).float().mean() < 0.3

    def test_workers_are_used_and_end(self, world, monkeypatch):
        monkeypatch.setenv("nnUNet_n_proc_DA", "2")
        trainer = build(world)
        trainer.on_train_epoch_start()
        assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
        workers = trainer.dataloader_unlabelled._processes
        assert len(workers) == 1
        assert workers[0].is_alive()
        trainer.on_epoch_start()
        trainer.current_epoch = 1
        trainer.disable_checkpointing = True
        trainer.on_train_end()
        workers[0].join(5)
        assert not workers[0].is_alive()

    def test_three_dimensions(self, tmp_path, monkeypatch):
        world = make_world(
            monkeypatch, tmp_path, "Dataset952_Volumes", labelled=5, unlabelled=2, dimensions=3
        )
        trainer = build(world)
        batch = next(trainer.dataloader_unlabelled)
        assert batch["data"].shape == (2, 2, *trainer.configuration_manager.patch_size)
        assert np.isfinite(epoch(trainer)).all()
        trainer.current_epoch = 1
        with here.threads_for_processes():
            trainer.perform_actual_validation()
        assert (Path(trainer.output_folder) / "validation" / "summary.json").is_file()


@pytest.fixture
def soft_world(tmp_path, monkeypatch):
    """The raters of the tests of sources, with unlabelled images beside them."""
    folders = set_folders(monkeypatch, tmp_path)
    folders.name, folders.number, folders.configuration = "Dataset953_SoftSsl", 953, "2d"
    masks, raw = {f"case{i}": masks_of(i) for i in range(6)}, folders.raw / folders.name
    noise = np.random.default_rng(0)
    images = {
        case: [(100 + 40 * its["b"] + noise.normal(0, 5, (SIDE, SIDE))).astype(np.float32)]
        for case, its in masks.items()
    }
    consensus = {case: votes_of(its).argmax(0).astype(np.uint8) for case, its in masks.items()}
    here.write_raw(raw, images, masks, consensus, {"background": 0, "rim": 1, "core": 2})
    for i in range(3):
        here.write_image(raw / "imagesUnlabelledTr" / f"more{i}_0000.nii.gz", images[f"case{i}"][0] + 1)
    here.plan(953)
    here.preprocess(953, ["2d"], ["weighted"])
    here.configure(953, "tiny")
    return folders


def test_raters_and_unlabelled_images(soft_world, capsys):
    for source in ("weighted", "hard"):
        trainer = build(soft_world, labels={"source": source})
        calls = seen_by_loss(trainer)
        assert np.isfinite(epoch(trainer)).all()
        labels, fractions, _ = calls[0][1]
        assert labels.shape[1] == (3 if source == "weighted" else 1)
        assert fractions.shape[1] == 3
        logged = trainer.logger.local_logger.my_fantastic_logging
        assert ("val_bdice_per_class" in logged) == (source == "weighted")
    capsys.readouterr()
    here.command("preprocess", "-d", 953, "-c", "2d", "-np", "1")
    out = capsys.readouterr().out
    assert "2d, weighted: 6 kept" in out
    assert "2d, unlabelled images: 3 kept" in out
