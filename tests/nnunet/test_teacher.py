"""A teacher: found, read, built without its class, frozen, averaged."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.teacher import Teacher, build, find, locate, portable, read_folds, trained_folds
from tests.nnunet.teacher_helpers import (
    DATASET,
    NAME,
    REGIONS,
    architecture,
    described,
    plans_of,
    write_teacher,
)

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore")  # nnU-Net's code warns


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    return tmp_path / DATASET / NAME


class Fixed(nn.Module):
    """Logits that do not depend on the image, behind a layer that training mode changes."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.norm, self.dropout = nn.BatchNorm2d(1), nn.Dropout(0.9)

    def forward(self, images):
        self.norm(images)
        return self.dropout(self.logits.view(1, -1, 1, 1).expand(len(images), -1, *images.shape[2:]))


IMAGES = torch.randn(2, 1, 8, 8)


@pytest.mark.parametrize("independent", [False, True])
def test_folds_are_averaged_as_probabilities(independent):
    logits = [0.0, 2.0], [1.0, -3.0]
    teacher = Teacher([Fixed(it) for it in logits], independent=independent)
    to_probs = (lambda z: z.sigmoid()) if independent else (lambda z: z.softmax(0))
    expected = sum(to_probs(torch.tensor(it)) for it in logits) / 2
    probs = teacher(IMAGES)
    assert probs.shape == (2, 2, 8, 8)
    torch.testing.assert_close(probs[1, :, 3, 4], expected)
    assert not probs.requires_grad


def test_it_stays_frozen_and_in_evaluation_mode_whatever_is_called():
    teacher = Teacher([Fixed([0.0, 2.0])], independent=False)
    before = {key: it.clone() for key, it in teacher.state_dict().items()}
    whole = nn.ModuleList([teacher])
    whole.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(it.requires_grad for it in teacher.parameters())
    for _ in range(3):
        assert torch.equal(teacher(IMAGES), teacher(IMAGES))
    assert all(torch.equal(it, before[key]) for key, it in teacher.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_it_is_built_from_its_own_plans_by_whatever_class_it_was_trained(folder, prefix):
    network = write_teacher(folder, prefix=prefix)
    teacher = build(read_folds(folder, [0], "checkpoint_final.pth"), CPU)
    with torch.no_grad():
        torch.testing.assert_close(teacher(IMAGES), network(IMAGES).softmax(1))


def test_a_teacher_of_regions_in_three_dimensions(folder):
    network = write_teacher(folder, "all", plans=plans_of(3), dataset_json=described(REGIONS))
    teacher = build(read_folds(folder, ["all"], "checkpoint_final.pth"), CPU)
    images = torch.randn(1, 1, 4, 6, 8)
    with torch.no_grad():
        torch.testing.assert_close(teacher(images), network(images).sigmoid())


def test_several_folds(folder):
    networks = [write_teacher(folder, fold) for fold in (0, 2)]
    teacher = build(read_folds(folder, (0, 2), "checkpoint_final.pth"), CPU)
    with torch.no_grad():
        expected = sum(it(IMAGES).softmax(1) for it in networks) / 2
    torch.testing.assert_close(teacher(IMAGES), expected)
    assert trained_folds(folder, "checkpoint_final.pth") == ["0", "2"]


def test_another_network_than_its_plans_make(folder):
    write_teacher(folder)
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["init_args"]["plans"]["configurations"]["2d"]["architecture"] = architecture(features=3)
    torch.save(content, path)
    with pytest.raises(InputError, match=r"found others, of SomebodysTrainer .* Use the offline teacher"):
        build(read_folds(folder, [0], "checkpoint_final.pth"), CPU)


def test_what_is_missing_is_named_together(folder):
    write_teacher(folder, 1)
    (folder / "fold_2").mkdir()
    (folder / "fold_2" / "checkpoint_final.pth").write_bytes(b"half a file")
    with pytest.raises(InputError) as caught:
        read_folds(folder, [0, 1, 2], "checkpoint_final.pth")
    first, second = caught.value.problems
    assert "fold_0" in first
    assert "expected this fold of the teacher, found folds 1, 2. Train that fold" in first
    assert "fold_2" in second
    assert "expected a checkpoint, found one that cannot be read" in second


def test_no_folder_and_no_checkpoint(folder):
    with pytest.raises(InputError, match="expected a teacher's folder, found none"):
        trained_folds(folder, "checkpoint_final.pth")
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=r"expected a fold with checkpoint_final\.pth, found none"):
        trained_folds(folder, "checkpoint_final.pth")
    write_teacher(folder, checkpoint="checkpoint_best.pth")
    with pytest.raises(
        InputError, match=r"found only checkpoint_best\.pth\. Finish its training, or set teacher"
    ):
        trained_folds(folder, "checkpoint_final.pth")


def test_a_checkpoint_that_diverged(folder):
    write_teacher(folder)
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    next(iter(content["network_weights"].values()))[0] = float("nan")
    torch.save(content, path)
    with pytest.raises(InputError, match="expected finite weights, found NaN"):
        read_folds(folder, [0], "checkpoint_final.pth")


def test_where_it_is_written_and_found_again(folder, tmp_path, monkeypatch):
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    stored = f"{DATASET}/{NAME}"
    for named in (NAME, stored, f"{tmp_path}/{stored}", f"{tmp_path}/{DATASET}/../{stored}"):
        assert find(named, DATASET) == stored
    assert locate(stored) == folder
    anyone = f"{DATASET}/{NAME.replace('2d', '{configuration}')}"
    assert find(anyone.split("/")[1], DATASET) == find(anyone, DATASET) == anyone
    assert locate(anyone, "2d") == folder
    assert locate(anyone, "3d_lowres") == folder.parent / NAME.replace("2d", "3d_lowres")
    with pytest.raises(InputError, match="expected a model's folder"):
        find("Other__nnUNetPlans__{configuration}", DATASET)
    moved = tmp_path / "moved"
    (moved / stored).mkdir(parents=True)
    monkeypatch.setenv("nnUNet_results", str(moved))
    assert locate(stored) == moved / stored
    assert portable(folder) == str(folder)
    assert locate(str(folder)) == folder
    (moved / DATASET / "Other__nnUNetPlans__2d").mkdir()
    (moved / DATASET / "Other__nnUNetPlans__2d" / "plans.json").touch()
    with pytest.raises(
        InputError, match=r"--teacher nothing: expected .* There are: Other__nnUNetPlans__2d\."
    ):
        find("nothing", DATASET)
