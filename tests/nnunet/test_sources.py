"""The sources of labels side by side, `random` and `file` above all, and what is refused."""

from __future__ import annotations

import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_dml.cli.main import main
from nnunet_dml.labels.storage import verify_soft_map
from nnunet_dml.nnunet import trainers
from nnunet_dml.nnunet.options import merge
from nnunet_dml.nnunet.soft_maps import SOURCES
from tests.conftest import set_folders
from tests.nnunet import mode_helpers as here
from tests.nnunet.mode_helpers import batches, disc, reaching_the_loss, write_image

DATASET, SIDE = "Dataset930_Sources", 32
FUSED = ("majority", "uniform", "weighted", "staple")


def masks_of(number):
    """Three raters of labels 1 and 2; the last is far too generous."""
    masks = {}
    for rater, grow in (("a", 0.0), ("b", 0.1), ("c", 0.35)):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[disc(mask.shape, 0.4 + grow, (0.05 * number, 0.1))] = 1
        mask[disc(mask.shape, 0.2 + grow, (0.05 * number, 0.1))] = 2
        masks[rater] = mask
    return masks


def stack_of(masks):
    return np.stack(list(masks.values()))


def votes_of(masks):
    return np.stack([(stack_of(masks) == c).mean(0) for c in range(3)])


def own_map(number):
    """(2, y, x) fractions that no rater has given."""
    rim = np.tile(np.linspace(0, 0.6, SIDE, dtype=np.float32), (SIDE, 1))
    return np.stack([rim, np.float32(0.05 * number) * (1 - rim)])


def weighted(masks):
    """Every rater weighted by the mean over the labels of his Dice against the majority."""
    vote = votes_of(masks).argmax(0)
    scores = [
        np.mean([2 * ((m == c) & (vote == c)).sum() / ((m == c).sum() + (vote == c).sum()) for c in (1, 2)])
        for m in masks.values()
    ]
    shares = np.array(scores) / sum(scores)
    return np.einsum("r,rcyx->cyx", shares, np.stack([[m == c for c in range(3)] for m in masks.values()]))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Six cases whose image is 0 outside a disc, with maps of every source."""
    with pytest.MonkeyPatch.context() as patch:
        folders = set_folders(patch, tmp_path_factory.mktemp("sources"))
        folders.masks = {f"case{i}": masks_of(i) for i in range(6)}
        folders.body = disc((SIDE, SIDE), 1.01)
        noise = np.random.default_rng(0)
        images, consensus = {}, {}
        for number, (case, masks) in enumerate(folders.masks.items()):
            image = 100 + 40 * masks["b"] + noise.normal(0, 5, (SIDE, SIDE))
            images[case] = [(image * folders.body).astype(np.float32)]
            consensus[case] = votes_of(masks).argmax(0).astype(np.uint8)
            write_image(folders.raw / DATASET / "softlabelsTr" / f"{case}.nii.gz", own_map(number))
        labels = {"background": 0, "rim": 1, "core": 2}
        here.write_raw(folders.raw / DATASET, images, folders.masks, consensus, labels)
        here.plan(930)
        here.preprocess(930, ["2d"], SOURCES)
        here.configure(930, "tiny")
        yield folders


def build(world, source, name="nnUNetTrainerDML", *, start=True, described_as=None, **groups):
    """A trainer of a source; `described_as` goes over dataset.json."""
    folder = world.preprocessed / DATASET
    plans, described = here.read_json(folder / "tiny.json"), here.read_json(folder / "dataset.json")
    plans |= {"continue_training": False, "nnunet_dml": merge({"labels": {"source": source}}, groups)}
    described |= described_as or {}
    trainer = getattr(trainers, name)(plans, "2d", 0, described, here.CPU)
    if start:
        trainer.initialize()
        trainer.on_train_start()
    return trainer


def refusal(capsys, action):
    """What a refused action says."""
    with pytest.raises(SystemExit) as stop:
        action()
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # nnU-Net's own code warns
class TestSideBySide:
    def on_disk(self, world, source, case):
        path = world.preprocessed / DATASET / "nnUNetPlans_2d_soft" / source / f"{case}.b2nd"
        return verify_soft_map(path).load()[:, 0]

    def test_what_is_on_disk(self, world):
        for number, (case, masks) in enumerate(world.masks.items()):
            votes = votes_of(masks)
            vote = votes.argmax(0)
            by_hand = {
                "majority": np.stack([vote == 1, vote == 2]),
                "uniform": votes[1:],
                "weighted": weighted(masks)[1:],
                "file": own_map(number),
                "random": stack_of(masks),
            }
            for source, expected in by_hand.items():
                np.testing.assert_allclose(
                    self.on_disk(world, source, case), expected, atol=1 / 255, err_msg=source
                )
            staple = self.on_disk(world, "staple", case)
            unanimous = votes.max(0) == 1
            np.testing.assert_array_equal(staple[:, unanimous], votes[1:, unanimous])
            assert np.abs(staple - votes[1:]).max() > 0.1

    @pytest.mark.parametrize("source", [*FUSED, "file"])
    def test_what_reaches_the_loss_is_what_is_on_disk(self, world, source):
        trainer = build(world, source)
        for batch in batches(trainer, 2):
            target, _ = reaching_the_loss(trainer, batch)[0]
            for case, found in zip(batch["keys"], target.numpy(), strict=True):
                np.testing.assert_allclose(found[1:], self.on_disk(world, source, case), atol=1e-6)
                np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)
        assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])

    @pytest.mark.parametrize("source", ["hard", "random"])
    def test_validation_is_on_the_consensus(self, world, source):
        trainer = build(world, source)
        for batch in batches(trainer, 2):
            target, _ = reaching_the_loss(trainer, batch)[0]
            for case, found in zip(batch["keys"], target, strict=True):
                consensus = votes_of(world.masks[case]).argmax(0)
                np.testing.assert_array_equal(found.argmax(0), consensus)

    def test_a_patch_has_the_labels_of_one_rater_each_about_equally_often(self, world):
        np.random.seed(0)
        dataset = build(world, "random").dataloader_train.data_loader._data
        drawn = Counter()
        for _ in range(300):
            labels = dataset.load_case("case1")[1][:][0, 0]
            outside = labels < 0
            matches = [
                rater
                for rater, mask in world.masks["case1"].items()
                if np.array_equal(mask[~outside], labels[~outside])
            ]
            assert len(matches) == 1
            np.testing.assert_array_equal(outside, ~world.body)
            drawn[matches[0]] += 1
        assert all(70 < count < 130 for count in drawn.values())  # 100 ± 8 each
        assert len(drawn) == 3

    def test_training_patches_hold_one_rater_each(self, world):
        """Through nnU-Net's loader and its augmentation without the random part."""
        trainer = build(world, "random")
        loader = trainer.dataloader_train.data_loader
        loader.transforms = trainer.get_validation_transforms(trainer._get_deep_supervision_scales())
        loader.patch_size = loader.final_patch_size
        loader.get_bbox = lambda shape, *rest: ([0] * len(shape), list(loader.patch_size))
        seen = set()
        for _ in range(20):
            batch = next(trainer.dataloader_train)
            target, _ = reaching_the_loss(trainer, batch)[0]
            for case, found in zip(batch["keys"], target.argmax(1).numpy(), strict=True):
                matches = [r for r, mask in world.masks[case].items() if np.array_equal(found, mask)]
                assert len(matches) == 1
                seen |= set(matches)
        assert seen == set("abc")

    @pytest.mark.parametrize("source", SOURCES)
    def test_missing_and_stale_maps_stop_it_with_the_command(
        self, world, source, tmp_path, monkeypatch, capsys
    ):
        here_now = SimpleNamespace()
        for name in ("raw", "preprocessed"):
            shutil.copytree(getattr(world, name) / DATASET, tmp_path / name / DATASET)
            monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
            setattr(here_now, name, tmp_path / name)
        raw = here_now.raw / DATASET
        changed = raw / ("softlabelsTr/case2.nii.gz" if source == "file" else "ratersTr/case2/b.nii.gz")
        sitk.WriteImage(sitk.ReadImage(str(changed)) * 0, str(changed))
        maps = here_now.preprocessed / DATASET / "nnUNetPlans_2d_soft" / source
        (maps / "case3.b2nd").unlink()
        message = refusal(capsys, lambda: build(here_now, source))
        assert "case2 (stale: sources changed)" in message
        assert "case3 (missing)" in message
        fusion = "" if source == "weighted" else f" --fusion {source}"
        assert f"`nnunet-dml preprocess -d {DATASET} -c 2d -p tiny{fusion}`" in message
        here.own_preprocess(930, ["2d"], [source], "tiny")
        assert "2 made (1 missing, 1 stale: sources changed), 4 kept" in capsys.readouterr().out
        build(here_now, source, start=False).on_train_start()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # nnU-Net's own code warns
class TestRefusals:
    @pytest.mark.parametrize(
        ("source", "labels"),
        [
            ("uniform", {}),
            ("file", {}),
            ("hard", {"smoothing": "boundary"}),
            ("random", {"smoothing": "all"}),
        ],
    )
    def test_lovasz_is_for_hard_labels(self, world, capsys, source, labels):
        groups = {"labels": labels, "loss": {"overlap": "lovasz"}}
        message = refusal(capsys, lambda: build(world, source, start=False, **groups))
        assert "expected hard labels with loss.overlap=lovasz" in message
        assert f"found labels.source={source}" in message

    @pytest.mark.parametrize("source", ["hard", "random"])
    def test_lovasz_trains_on_hard_labels(self, world, source):
        trainer = build(world, source, loss={"overlap": "lovasz"})
        assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])

    def test_class_weights_are_one_per_output(self, world, capsys):
        loss = {"class_weights": [1, 2]}
        message = refusal(capsys, lambda: build(world, "hard", start=False, loss=loss))
        assert "expected 3 loss.class_weights, each of a label, the background first, found 2" in message
        regions = {
            "labels": {"background": 0, "all": [1, 2], "core": [2]},
            "regions_class_order": [1, 2],
        }
        build(world, "hard", start=False, described_as=regions, loss=loss)

    def test_regions_have_no_background(self, world, capsys):
        regions = {
            "labels": {"background": 0, "all": [1, 2], "core": [2]},
            "regions_class_order": [1, 2],
        }
        message = refusal(
            capsys, lambda: build(world, "hard", start=False, described_as=regions, loss={"background": True})
        )
        assert "expected loss.background=false with region-based labels, found true" in message

    def test_staple_needs_every_rater_everywhere(self, world, tmp_path, monkeypatch, capsys):
        for name in ("raw", "preprocessed"):
            shutil.copytree(getattr(world, name) / DATASET, tmp_path / name / DATASET)
            monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        raw = tmp_path / "raw" / DATASET
        here.edit_json(raw / "dataset.json", lambda described: described["labels"].update(ignore=3))
        for case in ("case1", "case4"):
            mask = masks_of(int(case[-1]))["a"]
            mask[:5] = 3
            write_image(raw / "ratersTr" / case / "a.nii.gz", mask)
        arguments = ["preprocess", "-d", "930", "-c", "2d", "-np", "1", "--fusion"]
        assert main([*arguments, "staple"]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "ratersTr" in line]
        assert [line.count(case) for line, case in zip(lines, ("case1", "case4"), strict=True)] == [1, 1]
        assert all("found voxels of the ignore label 3. Use --fusion uniform" in line for line in lines)
        assert main([*arguments, "uniform"]) == 0

    def test_bad_files_are_all_named_and_nothing_is_half_written(self, world, tmp_path, monkeypatch, capsys):
        for name in ("raw", "preprocessed"):
            shutil.copytree(getattr(world, name) / DATASET, tmp_path / name / DATASET)
            monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        maps = tmp_path / "preprocessed" / DATASET / "nnUNetPlans_2d_soft" / "file"
        before = {path.name: path.read_bytes() for path in maps.iterdir()}
        own = tmp_path / "raw" / DATASET / "softlabelsTr"
        write_image(own / "case1.nii.gz", own_map(1) * 2)
        write_image(own / "case2.nii.gz", own_map(2)[:1])
        arguments = ["preprocess", "-d", "930", "-c", "2d", "-np", "1", "--fusion", "file"]
        assert main(arguments) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len([line for line in lines if "softlabelsTr" in line]) == 2
        assert {path.name: path.read_bytes() for path in maps.iterdir()} == before
        (own / "case3.nii.gz").unlink()
        assert main(arguments) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "case3" in line]
        assert "softlabelsTr: expected a soft map of every case, found no case3.nii.gz" in line
        assert "--fusion" in line


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # nnU-Net's own code warns
def test_own_maps_with_an_ignore_label(world, tmp_path, monkeypatch):
    """What the consensus ignores is ignored whatever the map says there."""
    folders = set_folders(monkeypatch, tmp_path)
    folder = folders.raw / "Dataset931_Own"
    shutil.copytree(world.raw / DATASET, folder)
    here.edit_json(folder / "dataset.json", lambda described: described["labels"].update(ignore=3))
    for case, masks in world.masks.items():
        consensus = votes_of(masks).argmax(0).astype(np.uint8)
        consensus[20:] = 3
        write_image(folder / "labelsTr" / f"{case}.nii.gz", consensus)
    here.plan(931)
    here.preprocess(931, ["2d"], ["file"])
    here.configure(931, "tiny", "labels.source=file")
    trainer = here.trainer_for(931, "2d", "tiny")
    (batch,) = batches(trainer)
    target, mask = reaching_the_loss(trainer, batch)[0]
    assert mask[:, :, :20].all()
    assert not mask[:, :, 20:].any()
    for case, found in zip(batch["keys"], target.numpy(), strict=True):
        np.testing.assert_allclose(found[1:, :20], own_map(int(case[-1]))[:, :20], atol=2 / 255)
    with torch.no_grad():
        statistics = trainer.validation_step(batch)
    assert statistics["reliability"][0].sum() == 2 * 20 * SIDE
