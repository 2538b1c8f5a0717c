"""Teacher and student trained on tiny data sets: labels, regions, an ignore label, three dimensions."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_dml.cli.main import main
from nnunet_dml.losses.distillation import TERMS
from nnunet_dml.nnunet.distillation import ECE
from tests.nnunet import mode_helpers as here
from tests.nnunet.distillation_world import SETS, TEACHER, build, make, series, step
from tests.nnunet.test_sources import refusal

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # nnU-Net's own code warns


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """All data sets; made when they are asked for."""
    with here.made_when_asked(tmp_path_factory.mktemp("taught"), make) as folders:
        yield folders


@pytest.mark.parametrize("number", SETS)
@pytest.mark.parametrize("name", ["nnUNetTrainerDML_KD", "nnUNetTrainerJML_KD"])
def test_it_trains_in_every_mode(world, number, name):
    trainer = build(world, number, name)
    before = {key: it.clone() for key, it in trainer.teacher.state_dict().items()}
    trainer.network.train()
    assert np.isfinite(step(trainer))
    logged = series(trainer)
    for key in (*(f"train_{it}" for it in TERMS), *ECE):
        assert len(logged[key]) == 1
        assert 0 <= logged[key][0] < 5
    assert all(torch.equal(it, before[key]) for key, it in trainer.teacher.state_dict().items())
    assert not any(module.training for module in trainer.teacher.modules())
    assert trainer.teacher.independent == (SETS[number][1].get("whole") is not None)


@pytest.mark.parametrize(
    "groups",
    [
        {"loss": {"deep_supervision": False}},
        {"labels": {"source": "uniform"}},
        {"labels": {"source": "uniform", "smoothing": "boundary"}, "loss": {"deep_supervision": False}},
        {"labels": {"source": "random"}},
        {"labels": {"smoothing": "all"}},
        {"teacher": {"calibration": "none"}},
        {"teacher": {"calibration": "temperature"}},
        {"teacher": {"bandwidth": "auto", "keys": 50}},
        {"teacher": {"voxels": "all", "bandwidth": 0.1}},
        {"teacher": {"ce_label": 0, "overlap_label": 0}},
        {"teacher": {"ce_teacher": 0, "overlap_teacher": 0}},
        {"loss": {"overlap": "ctl", "alpha": 0.3, "beta": 0.7, "class_weights": [1, 2, 2], "log": True}},
    ],
    ids=str,
)
def test_it_composes_with_other_options(world, groups):
    trainer = build(world, **groups)
    assert np.isfinite(step(trainer))
    logged = series(trainer)
    assert {key for key in logged if key.startswith("train_")} - {"train_losses"} == {
        f"train_{it}" for it in trainer.terms
    }
    assert np.isfinite(logged["val_losses"][0])


def test_the_loss_is_that_of_the_batch_the_labels_and_the_teacher(world):
    """By hand, without deep supervision: what the teacher says about the batch is in it."""
    trainer = build(world, loss={"deep_supervision": False}, teacher={"calibration": "none"})
    batch = next(trainer.dataloader_train)
    with torch.no_grad():
        logits = trainer.network(batch["data"])
        probs = trainer.teacher(batch["data"])
    truth = torch.nn.functional.one_hot(batch["target"][:, 0].long(), 3).movedim(-1, 1).float()
    p = logits.softmax(1)

    def entropy(target):
        return -(target * logits.log_softmax(1)).sum(1).mean()

    def overlap(target):
        terms = []
        for c in (1, 2):
            x, y = p[:, c], target[:, c]
            if target is probs and y.max() <= 0.01:
                continue
            terms.append((x - y).abs().sum() / (x.sum() + y.sum()))
        return sum(terms) / len(terms)

    expected = 0.25 * (entropy(truth) + entropy(probs)) + 0.75 * (overlap(truth) + overlap(probs) - 2)
    assert float(trainer.train_step(batch)["loss"]) == pytest.approx(expected.item(), abs=1e-4)


def test_the_teacher_computes_in_bfloat16_where_the_student_does(world):
    probs = []
    for mode in ("off", "on"):
        trainer = build(world, training={"seed": 1, "bfloat16": mode})
        probs.append(trainer.teacher(next(trainer.dataloader_train)["data"]))
    torch.testing.assert_close(*probs, atol=0.05, rtol=0)
    assert not torch.equal(*probs)
    assert np.isfinite(step(trainer))


def test_only_the_student_learns_and_only_it_is_saved(world, tmp_path):
    trainer = build(world)
    learning = {id(it) for group in trainer.optimizer.param_groups for it in group["params"]}
    assert learning == {id(it) for it in trainer.network.parameters()}
    step(trainer)
    assert all(it.grad is None for it in trainer.teacher.parameters())
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    saved = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    assert saved["network_weights"].keys() == trainer.network.state_dict().keys()
    shapes = [tuple(it.shape) for it in trainer.network.state_dict().values()]
    assert [tuple(it.shape) for it in saved["network_weights"].values()] == shapes
    of_teacher = [tuple(it.shape) for it in trainer.teacher.networks[0].state_dict().values()]
    assert shapes != of_teacher
    assert trainer.loss.state_dict() == {}


def test_several_folds_are_averaged(world):
    folder = world.results / world.dataset(960) / f"{TEACHER}__big__2d"
    copy = folder.parent / "TwoFolds__big__2d"
    shutil.copytree(folder, copy)
    shutil.copytree(copy / "fold_0", copy / "fold_1")
    path = copy / "fold_1" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    for key, weight in content["network_weights"].items():
        content["network_weights"][key] = weight * 1.5
    torch.save(content, path)
    held_back = here.read_json(copy / "fold_0" / "validation" / "summary.json")
    splits = world.preprocessed / world.dataset(960) / "splits_final.json"
    before = splits.read_text()
    try:
        both = json.loads(before)
        both[1] = both[0]
        splits.write_text(json.dumps(both))
        trainer = build(world, teacher={"model": f"{world.dataset(960)}/{copy.name}", "folds": [0, 1]})
    finally:
        splits.write_text(before)
    assert len(held_back["metric_per_case"]) == 1
    images = next(trainer.dataloader_val)["data"]
    each = [network(images).softmax(1) for network in trainer.teacher.networks]
    torch.testing.assert_close(trainer.teacher(images), (each[0] + each[1]) / 2)
    assert (each[0] - each[1]).abs().max() > 1e-3


class TestRefusals:
    def test_no_teacher(self, world, capsys):
        message = refusal(capsys, lambda: build(world, teacher={"model": None}))
        assert (
            "plans small: expected a teacher, found none. Run `nnunet-dml configure -d Dataset960_Labels"
            in message
        )
        assert "--teacher" in message

    def test_another_fold(self, world, capsys):
        message = refusal(capsys, lambda: build(world, fold=1))
        assert "expected this fold of the teacher, found folds 0" in message
        message = refusal(capsys, lambda: build(world, fold=1, teacher={"folds": [0]}))
        assert "not trained on the validation cases of the student (fold 1 of Dataset960_Labels)" in message

    def test_another_data_set(self, world, capsys):
        other = f"{world.dataset(961)}/{TEACHER}__big__2d"
        message = refusal(capsys, lambda: build(world, teacher={"model": other}))
        expected = f"a teacher of {world.dataset(960)}, found one of {world.dataset(961)}"
        assert expected in message

    def test_a_folder_that_is_gone(self, world, capsys):
        message = refusal(capsys, lambda: build(world, teacher={"model": "Dataset960_Labels/gone"}))
        assert "expected a teacher's folder, found none" in message

    def test_a_teacher_for_a_trainer_that_has_none(self, world, capsys):
        message = refusal(capsys, lambda: build(world, name="nnUNetTrainerDML", start=False))
        assert "nnUNetTrainerDML reads the options labels, loss, training only, found teacher" in message

    def test_options_that_are_not_read(self, world, capsys):
        groups = {"calibration": "none", "bandwidth": 0.1}
        message = refusal(capsys, lambda: build(world, teacher=groups, start=False))
        assert "teacher.bandwidth is read with teacher.calibration=kde only, found none" in message


def whole_training(trainer, epochs):
    """Train up to an epoch of a schedule of two."""
    trainer.num_epochs = epochs
    with here.threads_for_processes():
        trainer.run_training()
    return trainer


def test_a_resumed_training_is_the_one_that_was_not_interrupted(world):
    options = {"teacher": {"bandwidth": "auto", "keys": 100}}
    once = build(world, start=False, **options)
    once.initialize()
    whole_training(once, 2)
    first = build(world, start=False, **options)
    first.initialize()
    whole_training(first, 1)
    checkpoint = f"{first.output_folder}/checkpoint_final.pth"
    chosen = series(first)["teacher_bandwidth"]
    second = build(world, start=False, **options)
    second.load_checkpoint(checkpoint)
    second.calibration.choose = None  # it is not asked again
    whole_training(second, 2)
    assert second.teacher is None
    assert series(second)["teacher_bandwidth"] == chosen * 2
    for key, weight in once.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[key], weight, atol=0, rtol=0)
    assert series(second)["teacher_ece"] == series(once)["teacher_ece"]


def test_a_resumed_training_wants_the_teacher_that_it_began_with(world, capsys):
    first = build(world)
    step(first)
    first.current_epoch += 1
    first.save_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
    checkpoint = (
        world.results / world.dataset(960) / f"{TEACHER}__big__2d" / "fold_0" / "checkpoint_final.pth"
    )
    content, kept = torch.load(checkpoint, weights_only=False), checkpoint.read_bytes()
    for resumed, refused in ((False, False), (True, True)):
        content["current_epoch"] += 1  # trained since
        torch.save(content, checkpoint)
        second = build(world, start=False)
        if resumed:
            second.load_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
        else:
            second.initialize()
        try:
            if refused:
                message = refusal(capsys, second.on_train_start)
                assert (
                    f"{TEACHER}__big__2d: expected the teacher that it began with, found one trained since"
                    in message
                )
            else:
                second.on_train_start()
        finally:
            checkpoint.write_bytes(kept)
    third = build(world, start=False)
    third.load_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
    third.on_train_start()


def test_from_training_to_prediction_without_the_teacher(world, tmp_path, capsys):
    dataset = world.dataset(960)
    here.train(960, "2d", "small", "nnUNetTrainerDML_KD")
    log = capsys.readouterr().out
    assert f"Taught by {dataset}/{TEACHER}__big__2d, fold 0, calibration: kde." in log
    assert log.count("train_loss's terms: ce_label ") == 2
    assert log.count("teacher's ECE 0.") == 2
    model = world.results / dataset / "nnUNetTrainerDML_KD__small__2d"
    teacher = world.results / dataset / f"{TEACHER}__big__2d"
    hidden = tmp_path / "hidden"
    shutil.move(teacher, hidden)
    try:
        here.train(960, "2d", "small", "nnUNetTrainerDML_KD", only_run_validation=True)
        predictor = nnUNetPredictor(device=here.CPU, use_mirroring=False, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model), (0,))
        image = np.zeros((1, 1, 32, 32), np.float32)
        predicted = predictor.predict_single_npy_array(image, {"spacing": [999, 1, 1]}, None, None, False)
        assert predicted.shape == (1, 32, 32)
        assert main(["export", model.name, "-d", "960", "-f", "0", "-o", str(tmp_path / "model.zip")]) == 0
        message = refusal(
            capsys, lambda: here.train(960, "2d", "small", "nnUNetTrainerDML_KD", continue_training=True)
        )
        assert "expected a teacher's folder, found none" in message
    finally:
        shutil.move(hidden, teacher)
