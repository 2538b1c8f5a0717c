"""Semi-supervised training: what reaches the loss, what is kept, resuming, and nnU-Net's modes."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_dml.nnunet.trainers.semi_supervised import SERIES, STATE
from tests.nnunet import mode_helpers as here
from tests.nnunet.semi_supervised.helpers import SimpleIterator, epoch, equal, seen_by_loss, weights_of
from tests.nnunet.ssl_world import SIDE, build, enter

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # nnU-Net's own code warns


class TestAStep:
    @pytest.mark.parametrize("given", [{}, {"labels": "soft"}])
    def test_the_student_sees_labelled_and_strong_patches_the_teacher_the_weak_ones(self, world, given):
        trainer = build(world, unlabelled={"batch_size": 3, "cutmix": 0, "confidence": 0.4, **given})
        shown, asked = [], []
        trainer.network.register_forward_pre_hook(lambda module, arguments: shown.append(arguments[0]))
        trainer._teacher.register_forward_hook(
            lambda module, arguments, output: asked.append((arguments[0], output))
        )
        loader, views = trainer.dataloader_unlabelled, []
        draw = type(loader).__next__
        trainer.dataloader_unlabelled = SimpleIterator(lambda: views.append(draw(loader)) or views[-1])
        calls = seen_by_loss(trainer)
        trainer.on_train_epoch_start()
        batch = next(trainer.dataloader_train)
        trainer.train_step(batch)
        (student,), ((teacher, logits),), ((_, target),) = shown, asked, calls
        weak, strong = views[0]["data"].chunk(2, 1)
        assert views[0]["data"].shape == (3, 2, SIDE, SIDE)
        assert torch.equal(teacher, weak)
        assert torch.equal(student, torch.cat((batch["data"], strong)))
        assert not torch.equal(weak, strong)
        labels, fractions, valid = target
        assert torch.equal(labels, batch["target"])
        greatest = torch.nn.functional.one_hot(logits.argmax(1), 3).movedim(-1, 1).float()
        assert torch.equal(fractions, logits.softmax(1) if given else greatest)
        assert torch.equal(valid, logits.softmax(1).amax(1, keepdim=True) >= 0.4)
        assert set(views[0]["keys"]) <= {"case6", "case7", "case8", "case9"}

    def test_cutmix_brings_labels_into_unlabelled_patches(self, world):
        trainer = build(world, unlabelled={"cutmix": 1.0, "labels": "soft"})
        trainer.on_train_epoch_start()
        calls = seen_by_loss(trainer)
        for _ in range(5):
            trainer.train_step(next(trainer.dataloader_train))
        fractions = torch.cat([target[1] for _, target in calls])
        one_hot = (fractions == 0) | (fractions == 1)
        share = one_hot.all(1).float().mean()
        assert 0.05 < share < 0.6  # at this stage the teacher is sure of nothing, and knows no zeros and ones

    def test_student_and_teacher_compute_in_bfloat16(self, world):
        trainer = build(world, training={"bfloat16": "on"})
        seen = {}
        for name, network in (("student", trainer.network), ("teacher", trainer.average.module)):
            (last,) = [it for it in network.modules() if isinstance(it, torch.nn.Conv2d)][-1:]
            last.register_forward_hook(
                lambda module, inputs, output, name=name: seen.update({name: output.dtype})
            )
        epoch(trainer, iterations=1)
        assert seen == {
            "student": torch.float32,
            "teacher": torch.bfloat16,
        }  # the student's last is validated
        trainer.on_train_epoch_start()
        trainer.train_step(next(trainer.dataloader_train))
        assert seen["student"] is torch.bfloat16

    def test_the_average_follows_and_the_teacher_is_it(self, world):
        trainer = build(world, unlabelled={"ema": 0.5})
        trainer.on_train_epoch_start()
        students, teachers = [weights_of(trainer.network)], [weights_of(trainer.average.module)]
        assert equal(students[0], teachers[0])
        for _ in range(3):
            trainer.train_step(next(trainer.dataloader_train))
            students.append(weights_of(trainer.network))
            teachers.append(weights_of(trainer.average.module))
        for name, weight in students[3].items():
            assert torch.equal(teachers[1][name], students[1][name])
            by_hand = (students[1][name] + students[2][name]) / 4 + weight / 2
            torch.testing.assert_close(teachers[3][name], by_hand)
        assert trainer._teacher is trainer.average.module
        assert isinstance(trainer._teacher(next(trainer.dataloader_val)["data"]), torch.Tensor)

    def test_before_its_epoch_labels_stand_alone(self, world):
        trainer = build(world, unlabelled={"start_epoch": 1}, training={"epochs": 2})
        calls = seen_by_loss(trainer)
        trainer.dataloader_unlabelled, loader = None, trainer.dataloader_unlabelled
        epoch(trainer)
        assert [type(target) for _, target in calls[:2]] == [torch.Tensor, torch.Tensor]
        trainer.dataloader_unlabelled = loader
        epoch(trainer)
        assert [len(target) for _, target in calls[3:5]] == [3, 3]
        logged = {name: trainer.logger.get_value(name, step=None) for name in SERIES}
        for name in ("ssl_ce_unlabelled", "ssl_confidence", "ssl_valid"):
            assert logged[name][0] == 0
            assert logged[name][1] > 0
        assert logged["ssl_decay"] == pytest.approx([1 - 1 / 3, 1 - 1 / 5])

    def test_figures_are_means_over_the_epoch(self, world, capsys):
        trainer = build(world, unlabelled={"confidence": 0.3})
        terms, valid = [], []
        trainer.loss.register_forward_hook(
            lambda module, arguments, output: terms.append(module.terms.clone())
        )
        trainer.loss.register_forward_pre_hook(lambda module, arguments: valid.append(arguments[1]))
        epoch(trainer, 3)
        means = torch.stack(terms[:3]).mean(0).tolist()
        assert [trainer.logger.get_value(name, step=-1) for name in SERIES[:4]] == pytest.approx(means)
        assert 0 <= trainer.logger.get_value("ssl_valid", step=-1) <= 1
        line = next(line for line in capsys.readouterr().out.splitlines() if "ce_unlabelled" in line)
        assert f"ce_labelled {means[0]:.4f}, ce_unlabelled {means[1]:.4f}, overlap_labelled" in line


class TestWhatIsKept:
    @pytest.fixture
    def trained(self, world):
        trainer = build(world, unlabelled={"ema": 0.9}, training={"epochs": 3, "save_every": 1})
        epoch(trainer)
        return trainer

    def test_validation_is_on_the_average(self, world, trained):
        during = []
        trained.loss.register_forward_pre_hook(lambda *_: during.append(weights_of(trained.network)))
        student, average = weights_of(trained.network), weights_of(trained.average.module)
        with torch.no_grad():
            trained.on_validation_epoch_start()
            outputs = [trained.validation_step(next(trained.dataloader_val))]
            trained.current_epoch -= 1  # the same value in the log again
            trained.on_validation_epoch_end(outputs)
        assert equal(during[0], average)
        assert equal(weights_of(trained.network), student)
        assert not equal(student, average)

    def test_a_checkpoint_predicts_with_the_average_and_goes_on_with_the_student(
        self, world, trained, tmp_path
    ):
        trained.save_checkpoint(str(tmp_path / "checkpoint.pth"))
        content = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
        student, average = weights_of(trained.network), weights_of(trained.average.module)
        assert equal(content["network_weights"], average)
        assert equal(content["optimizer_state"][STATE]["weights"], student)
        assert not equal(student, average)
        resumed = build(world, start=False, unlabelled={"ema": 0.9}, training={"epochs": 3, "save_every": 1})
        resumed.load_checkpoint(str(tmp_path / "checkpoint.pth"))
        assert equal(weights_of(resumed.network), student)
        assert equal(weights_of(resumed.average.module), average)
        assert resumed.average.updates == 2
        for mine, theirs in zip(
            resumed.optimizer.state_dict()["state"].values(), trained.optimizer.state_dict()["state"].values(), strict=True
        ):  # fmt: skip
            assert torch.equal(mine["momentum_buffer"], theirs["momentum_buffer"])
        resumed.on_train_start()
        assert equal(weights_of(resumed.average.module), average)

    def test_nothing_half_written_and_weights_back_where_the_disk_is_full(
        self, trained, tmp_path, monkeypatch
    ):
        student = weights_of(trained.network)

        def full(*arguments, **more):
            raise OSError("No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space"):
            trained.save_checkpoint(str(tmp_path / "checkpoint.pth"))
        assert not list(tmp_path.iterdir())
        assert equal(weights_of(trained.network), student)

    @pytest.mark.parametrize("late", [0, 1])
    def test_a_resumed_run_is_the_uninterrupted_one(self, world, late, tmp_path):
        options = {"unlabelled": {"start_epoch": late}, "training": {"epochs": 3, "seed": 5, "save_every": 1}}
        whole = build(world, **options)
        losses = [epoch(whole) for _ in range(3)]
        first = build(world, **options)
        assert [epoch(first)] == losses[:1]
        first.current_epoch -= 1  # as nnU-Net counts while an epoch ends
        first.save_checkpoint(str(tmp_path / "checkpoint.pth"))
        resumed = build(world, start=False, **options)
        resumed.load_checkpoint(str(tmp_path / "checkpoint.pth"))
        resumed.on_train_start()
        assert [epoch(resumed), epoch(resumed)] == losses[1:]
        assert equal(weights_of(resumed.network), weights_of(whole.network))
        assert equal(weights_of(resumed.average.module), weights_of(whole.average.module))

    def test_pretrained_weights_are_the_first_teacher(self, world):
        trainer = build(world, start=False)
        trainer.initialize()
        with torch.no_grad():
            for weight in trainer.network.parameters():
                weight.fill_(0.01)
        trainer.on_train_start()
        assert equal(weights_of(trainer.average.module), weights_of(trainer.network))


@pytest.fixture(scope="module")
def finished(made):
    """A training by nnU-Net's own function, with validation at its end."""
    folder = made.preprocessed / made.name
    content = here.read_json(folder / "tiny.json")
    content["plans_name"] = "short"
    content["nnunet_dml"]["training"] |= {"epochs": 2, "save_every": 1}
    (folder / "short.json").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        enter(patch, made)
        here.train(
            made.number, "2d", "short", "nnUNetTrainerDML_SSL", 0, export_validation_probabilities=True
        )
    return made.results / made.name / "nnUNetTrainerDML_SSL__short__2d"


class TestAWholeTraining:
    def test_validation_is_done(self, finished):
        summary = json.loads((finished / "fold_0" / "validation" / "summary.json").read_text())
        assert len(summary["metric_per_case"]) == 2

    def test_nnunet_predicts_with_the_average(self, world, finished, tmp_path):
        """The probabilities of nnU-Net's predictor are those of the validation, which were the average's."""
        predictor = nnUNetPredictor(device=here.CPU, allow_tqdm=False, perform_everything_on_device=False)
        predictor.initialize_from_trained_model_folder(str(finished), (0,), "checkpoint_final.pth")
        content = torch.load(finished / "fold_0" / "checkpoint_final.pth", weights_only=False)
        assert equal(predictor.list_of_parameters[0], content["network_weights"])
        case = next((finished / "fold_0" / "validation").glob("*.npz"))
        image = world.raw / world.name / "imagesTr" / f"{case.stem}_0000.nii.gz"
        data, properties = predictor.plans_manager.image_reader_writer_class().read_images([str(image)])
        _, probs = predictor.predict_single_npy_array(data, properties, None, None, True)
        np.testing.assert_allclose(probs, np.load(case)["probabilities"], atol=1e-5)

    def test_validation_alone_is_on_the_average(self, world, finished):
        """`--val` finds the same as the training's end."""
        summary = finished / "fold_0" / "validation" / "summary.json"
        before = json.loads(summary.read_text())["foreground_mean"]
        summary.unlink()
        here.train(world.number, "2d", "short", "nnUNetTrainerDML_SSL", 0, only_run_validation=True)
        assert json.loads(summary.read_text())["foreground_mean"] == before

    def test_it_is_exported_for_stock_nnunet_without_the_student(self, world, finished, tmp_path):
        here.command("export", finished, "-o", tmp_path / "model.zip")
        with zipfile.ZipFile(tmp_path / "model.zip") as archive:
            archive.extractall(tmp_path)
        (checkpoint,) = tmp_path.rglob("checkpoint_final.pth")
        slim = torch.load(checkpoint, weights_only=False)
        whole = torch.load(finished / "fold_0" / "checkpoint_final.pth", weights_only=False)
        assert equal(slim["network_weights"], whole["network_weights"])
        assert STATE in whole["optimizer_state"]
        assert "optimizer_state" not in slim
        assert checkpoint.stat().st_size < 0.6 * (finished / "fold_0" / "checkpoint_final.pth").stat().st_size
