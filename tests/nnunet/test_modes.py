"""Soft labels in nnU-Net's modes, 2D: PNG, ignore label, regions, ResEnc, networks of other kinds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from nnunet_dml.nnunet.online import batch_statistics
from nnunet_dml.nnunet.targets import TargetLayout
from tests.conftest import set_folders
from tests.nnunet import mode_helpers as here
from tests.nnunet.mode_helpers import batches, disc, reaching_the_loss, trainer_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # nnU-Net's own code warns

SIDE = 32
IGNORE = 3
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


def masks_of(number: int, *, abstaining: bool) -> dict[str, np.ndarray]:
    """Three raters' discs with a core; abstaining, the first leaves the left columns open, all the last rows."""
    masks = {}
    for rater, grow in (("a", 0.0), ("b", 0.12), ("c", 0.24)):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[disc(mask.shape, 0.4 + grow, (0.05 * number, 0.1))] = 1
        mask[disc(mask.shape, 0.15 + grow, (0.05 * number, 0.1))] = 2
        if abstaining:
            mask[-5:] = IGNORE  # an odd number: blocks of two rows mix
            if rater == "a":
                mask[:, :14] = IGNORE
        masks[rater] = mask
    return masks


def by_hand(masks: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(3, *spatial) fractions among those who labelled a voxel, and where anyone did."""
    stack = np.stack(list(masks.values()))
    voters = (stack != IGNORE).sum(0)
    shares = np.stack([(stack == c).sum(0) for c in range(3)]) / np.maximum(voters, 1)
    return shares, voters > 0


def consensus_of(masks: dict[str, np.ndarray]) -> np.ndarray:
    shares, known = by_hand(masks)
    return np.where(known, shares.argmax(0), IGNORE).astype(np.uint8)


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """2D data sets of the same six cases: 911 labels, 912 with an ignore label, 913 regions, 914 both."""
    with pytest.MonkeyPatch.context() as patch:
        folders = set_folders(patch, tmp_path_factory.mktemp("flat"))
        folders.masks = {}
        for number, (name, labels, abstaining) in {
            911: ("Labels", {"background": 0, "rim": 1, "core": 2}, False),
            912: ("Sparse", {"background": 0, "rim": 1, "core": 2, "ignore": IGNORE}, True),
            913: ("Regions", REGIONS, False),
            914: ("SparseRegions", {**REGIONS, "ignore": IGNORE}, True),
        }.items():
            raters = {f"case{i}": masks_of(i, abstaining=abstaining) for i in range(6)}
            noise = np.random.default_rng(0)
            images = {
                case: [(100 + 50 * masks["b"] + noise.normal(0, 5, (SIDE, SIDE))).astype(np.float32)]
                for case, masks in raters.items()
            }
            more = {"regions_class_order": [1, 2]} if "whole" in labels else {}
            consensus = {case: consensus_of(masks) for case, masks in raters.items()}
            folder = folders.raw / f"Dataset{number}_{name}"
            here.write_raw(folder, images, raters, consensus, labels, **more)
            here.plan(number)
            here.preprocess(number, ["2d"])
            here.configure(number, "tiny", "labels.source=uniform")
            folders.masks[number] = raters
        yield folders


class TestIgnoreLabel:
    """A rater who marks a voxel as ignored abstains there; where all abstain, the voxel does not count."""

    @pytest.fixture(scope="class")
    def trainer(self, flat):
        return trainer_for(912, "2d", "tiny")

    def test_what_reaches_the_loss(self, flat, trainer):
        for batch in batches(trainer, 3):
            target, mask = reaching_the_loss(trainer, batch)[0]
            for case, found, valid in zip(batch["keys"], target, mask, strict=True):
                expected, known = by_hand(flat.masks[912][case])
                np.testing.assert_array_equal(valid[0], known)
                np.testing.assert_allclose(found[:, known], expected[:, known], atol=1 / 255)

    def test_lower_resolutions_are_means_over_what_anyone_labelled(self, flat, trainer):
        (batch,) = batches(trainer)
        target, mask = reaching_the_loss(trainer, batch)[1]
        half = SIDE // 2
        for case, found, valid in zip(batch["keys"], target, mask, strict=True):
            expected, known = by_hand(flat.masks[912][case])
            blocks = (expected * known).reshape(3, half, 2, half, 2).sum((2, 4))
            voxels = known.reshape(half, 2, half, 2).sum((1, 3))
            np.testing.assert_array_equal(valid[0], voxels > 0)
            counted = voxels > 0
            np.testing.assert_allclose(
                found[:, counted], (blocks / np.maximum(voxels, 1))[:, counted], atol=1 / 255
            )

    def test_ignored_voxels_have_no_gradient_and_no_effect(self, trainer):
        (batch,) = batches(trainer)
        outputs = [output.detach().requires_grad_() for output in trainer.network(batch["data"])]
        loss = trainer.loss(outputs, batch["target"])
        gradient = torch.autograd.grad(loss, outputs[0])[0]
        ignored = ~trainer.layout.soft(batch["target"])[1].expand_as(gradient)
        assert ignored.any()
        assert (gradient[ignored] == 0).all()
        assert (gradient[~ignored] != 0).float().mean() > 0.9
        changed = batch["target"].clone()
        nowhere = ignored[:, :1]
        changed[:, 0:1][nowhere], changed[:, 1:2][nowhere] = 0.7, 0.3
        with torch.no_grad():
            moved = [outputs[0].masked_fill(ignored, 7.0), *outputs[1:]]
            assert trainer.loss(outputs, changed) == loss
            assert trainer.loss(moved, batch["target"]) == loss

    def test_patches_are_drawn_where_someone_labelled(self, trainer):
        """With an ignore label nnU-Net draws from the locations of all labels, which it notes in preprocessing."""
        loader = trainer.dataloader_train.data_loader
        *_, properties = loader._data.load_case("case0")
        locations = properties["class_locations"][loader.annotated_classes_key]
        assert len(locations)
        assert max(locations[:, 2]) < SIDE - 5
        next(trainer.dataloader_train)

    def test_online_figures_leave_out_what_the_consensus_ignores(self):
        """A user's own consensus may ignore a voxel that some rater has labelled."""
        layout = TargetLayout(foreground=2, regions=None, ignore_label=IGNORE)
        labels = torch.tensor([[[[1.0, IGNORE, 2.0, IGNORE]]]])
        soft = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 1.0]]]])
        logits = torch.tensor([[[[0.0] * 4], [[5.0] * 4], [[0.0] * 4]]])
        found = batch_statistics(logits, torch.cat((soft, labels), 1), layout)
        assert found["tp_hard"].tolist() == [1, 0]
        assert found["fp_hard"].tolist() == [1, 0]
        assert found["fn_hard"].tolist() == [0, 1]
        assert found["reliability"][0].sum() == 2
        regions = TargetLayout(foreground=2, regions=((1, 2), (2,)), ignore_label=IGNORE)
        hard = torch.stack([labels[:, 0] == 1, labels[:, 0] == 2, labels[:, 0] == IGNORE], 1).float()
        hard[:, 0] += hard[:, 1]
        found = batch_statistics(
            torch.tensor([[[[5.0] * 4], [[-5.0] * 4]]]), torch.cat((soft, hard), 1), regions
        )
        assert found["tp_hard"].tolist() == [2, 0]
        assert found["fp_hard"].tolist() == [0, 0]

    def test_it_trains_and_validates(self, flat):
        here.train(912, "2d", "tiny", export_validation_probabilities=True)
        model = flat.results / "Dataset912_Sparse" / "nnUNetTrainerDML__tiny__2d"
        summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
        assert np.isfinite(summary["foreground_mean"]["Dice"])


class TestRegions:
    """The network has an output per region; a region's fraction is the sum of its labels'."""

    @pytest.mark.parametrize("dataset", [913, 914])
    def test_what_reaches_the_loss(self, flat, dataset):
        trainer = trainer_for(dataset, "2d", "tiny")
        for batch in batches(trainer, 2):
            target, mask = reaching_the_loss(trainer, batch)[0]
            assert target.shape[1] == 2
            for number, case in enumerate(batch["keys"]):
                (_, rim, core), known = by_hand(flat.masks[dataset][case])
                expected = np.stack([rim + core, core])
                if mask is not None:
                    np.testing.assert_array_equal(mask[number, 0], known)
                np.testing.assert_allclose(target[number][:, known], expected[:, known], atol=2 / 255)
            assert (mask is None) == (dataset == 913)

    def test_the_loss_is_binary_cross_entropy_and_overlap_of_each_region(self, flat):
        here.configure(914, "flat", "labels.source=uniform", "loss.deep_supervision=false")
        trainer = trainer_for(914, "2d", "flat")
        (batch,) = batches(trainer)
        ((target, mask),) = reaching_the_loss(trainer, batch)
        y, valid = target.double().numpy(), np.broadcast_to(mask.numpy(), target.shape)
        logits = torch.from_numpy(np.random.default_rng(1).normal(0, 2, target.shape))
        p = 1 / (1 + np.exp(-logits.numpy()))
        entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p))[valid].mean()
        overlaps = []
        for c in range(2):
            it = p[:, c][valid[:, c]], y[:, c][valid[:, c]]
            total, apart = it[0].sum() + it[1].sum(), np.abs(it[0] - it[1]).sum()
            overlaps.append((total - apart) / total)
        expected = 0.5 * entropy - 1.5 * np.mean(overlaps)
        assert trainer.loss(logits, batch["target"]).item() == pytest.approx(expected, abs=1e-5)

    def test_the_sigmoid_is_taken_in_single_precision(self, flat):
        trainer = trainer_for(913, "2d", "tiny")
        (batch,) = batches(trainer)
        outputs = [40 * output.detach().half() for output in trainer.network(batch["data"])]
        loss = trainer.loss(outputs, batch["target"])
        assert loss.dtype == torch.float32
        assert loss == trainer.loss([output.float() for output in outputs], batch["target"])

    @pytest.mark.parametrize("source", ["uniform", "hard"])
    @pytest.mark.parametrize("smoothing", ["all", "boundary"])
    def test_smoothing_is_of_each_region(self, flat, source, smoothing):
        name = f"{source}_{smoothing}"
        options = (f"labels.source={source}", f"labels.smoothing={smoothing}", "labels.epsilon=0.2")
        here.configure(914, name, *options)
        trainer = trainer_for(914, "2d", name)
        (batch,) = batches(trainer)
        target, mask = reaching_the_loss(trainer, batch)[0]
        for number, case in enumerate(batch["keys"]):
            (_, rim, core), known = by_hand(flat.masks[914][case])
            rim, core = (np.rint(255 * it) / 255 for it in (rim, core))  # a half is stored as 128
            plain = np.stack([rim + core, core])
            if source == "hard":
                consensus = consensus_of(flat.masks[914][case])
                plain = np.stack([(consensus == 1) | (consensus == 2), consensus == 2]).astype(float)
            everywhere = 0.8 * plain + 0.1
            expected = everywhere
            if smoothing == "boundary":
                near = [near_another_label(region > 0.5, known) for region in plain]
                expected = np.where(near, everywhere, plain)
            np.testing.assert_allclose(target[number][:, known], expected[:, known], atol=2 / 255)
            np.testing.assert_array_equal(mask[number, 0], known)

    @pytest.mark.parametrize(
        ("dataset", "name"),
        [(913, "nnUNetTrainerDML"), (914, "nnUNetTrainerJML"), (914, "nnUNetTrainerDML_BLS")],
    )
    def test_it_trains_and_validates(self, flat, dataset, name):
        plans = "plain" if name.endswith("BLS") else "tiny"  # hard labels are that trainer's default
        if plans == "plain":
            here.configure(dataset, plans)
        here.train(dataset, "2d", plans, name, export_validation_probabilities=True)
        (model,) = flat.results.glob(f"Dataset{dataset}_*/{name}__{plans}__2d")
        with np.load(next((model / "fold_0" / "validation").glob("*.npz"))) as saved:
            assert saved["probabilities"].shape[0] == 2
        here.train(dataset, "2d", plans, name, only_run_validation=True)


def near_another_label(region: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether a voxel's 3 × 3 neighbourhood holds another known value, voxel by voxel."""
    found = np.zeros_like(region)
    for y, x in np.argwhere(known):
        around = (slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2))
        values = region[around][known[around]]
        found[y, x] = values.min() != values.max()
    return found


def test_the_residual_encoder_preset_trains(flat):
    plans = "nnUNetResEncUNetMPlans"
    here.plan(911, "nnUNetPlannerResEncM")
    here.own_preprocess(911, ["2d"], ["uniform"], plans)
    here.configure(911, "resenc", "labels.source=uniform", plans=plans)
    trainer = trainer_for(911, "2d", "resenc")
    assert type(trainer.network).__name__ == "ResidualEncoderUNet"
    (batch,) = batches(trainer)
    target, mask = reaching_the_loss(trainer, batch)[0]
    for number, case in enumerate(batch["keys"]):
        np.testing.assert_allclose(target[number], by_hand(flat.masks[911][case])[0], atol=2 / 255)
    assert mask is None
    here.train(911, "2d", "resenc")
    assert list(flat.results.glob("Dataset911_*/nnUNetTrainerDML__resenc__2d/fold_0/checkpoint_final.pth"))


class TestOtherNetworks:
    """Networks that plans may name, with one output only."""

    def plans(self, flat, name, network, **options):
        def change(plans):
            plans["plans_name"] = name
            plans["nnunet_dml"]["loss"] = options
            plans["configurations"]["2d"]["architecture"] = {
                "network_class_name": network,
                "arch_kwargs": {},
                "_kw_requires_import": [],
            }

        folder = flat.preprocessed / "Dataset911_Labels"
        (folder / f"{name}.json").write_text((folder / "tiny.json").read_text())
        here.edit_json(folder / f"{name}.json", change)

    def test_without_deep_supervision_any_network_trains(self, flat):
        self.plans(flat, "plain", f"{here.__name__}.PlainNetwork", deep_supervision=False)
        here.train(911, "2d", "plain")
        assert list(flat.results.glob("Dataset911_*/nnUNetTrainerDML__plain__2d/fold_0/validation/*.nii.gz"))

    @pytest.mark.parametrize(
        ("network", "words"),
        [
            (f"{here.__name__}.PlainNetwork", "Set loss.deep_supervision=false"),
            ("dynamic_network_architectures.architectures.primus.Primus", "a trainer class of its own"),
        ],
    )
    def test_with_deep_supervision_it_is_refused_before_training(self, flat, capsys, network, words):
        self.plans(flat, "refused", network)
        with pytest.raises(SystemExit) as stop:
            trainer_for(911, "2d", "refused")
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert network.rpartition(".")[2] in message
        assert words in message


def test_coloured_png(tmp_path, monkeypatch):
    """RGB pictures through `convert`: three channels, fractions of two raters."""
    folders = set_folders(monkeypatch, tmp_path)
    masks = {f"case{i}": masks_of(i, abstaining=False) for i in range(5)}
    for case, raters in masks.items():
        noise = np.random.default_rng(0).integers(1, 50, (SIDE, SIDE, 3))
        here.write_image(
            tmp_path / "src" / "images" / f"{case}.png",
            (noise + 60 * raters["b"][..., None]).astype(np.uint8),
            vector=True,
        )
        for rater in "ab":
            here.write_image(tmp_path / "src" / "raters" / rater / f"{case}.png", raters[rater])
    here.command(
        "convert", "raters", tmp_path / "src", "--dataset", "915_Coloured", "--layout", "folders", "-np", "1"
    )
    here.plan(915)
    here.preprocess(915, ["2d"])
    here.configure(915, "tiny", "labels.source=uniform")
    trainer = trainer_for(915, "2d", "tiny")
    (batch,) = batches(trainer)
    assert batch["data"].shape[1] == 3
    target, _ = reaching_the_loss(trainer, batch)[0]
    for number, case in enumerate(batch["keys"]):
        expected, _ = by_hand({rater: masks[case][rater] for rater in "ab"})
        np.testing.assert_allclose(target[number], expected, atol=2 / 255)
    here.train(915, "2d", "tiny")
    assert list(folders.results.glob("*/nnUNetTrainerDML__tiny__2d/fold_0/validation/*.png"))
