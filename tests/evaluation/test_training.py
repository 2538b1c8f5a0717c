"""How a model was trained, read from its folder."""

import json

import pytest
import torch

from nnunet_dml.evaluation.calibrated.outputs import RECORD
from nnunet_dml.evaluation.training import training_of
from nnunet_dml.nnunet.option_groups import Options
from nnunet_dml.nnunet.trainers import nnUNetTrainerDML
from tests.evaluation.evaluation_world import MODEL, World

STOCK_LOSS = "DeepSupervisionWrapper(\n  (loss): DC_and_CE_loss(\n    (ce): RobustCrossEntropyLoss()\n  )\n)"


def write_model(folder, *, plans=None, folds=("0", "1"), final=True, **debug):
    """A model's folder as a training leaves it, with nnU-Net's notes on it in words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps({"plans_name": "short", **(plans or {})}))
    for fold in folds:
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        said = {"output_folder_base": str(folder), "num_epochs": "8", "num_iterations_per_epoch": "25"}
        (folder / f"fold_{fold}" / "debug.json").write_text(json.dumps({**said, **debug}))
        if final:
            (folder / f"fold_{fold}" / "checkpoint_final.pth").write_bytes(b"never read")
    return folder


def options(groups=("labels", "loss", "training"), **values):
    """What this package's trainers leave in debug.json."""
    made = Options.model_validate(values)
    noted = {it: made.model_dump(mode="json")[it] for it in groups}
    return {
        "options": str(made),
        "option_groups": str(tuple(groups)),
        "options_json": json.dumps(noted),
    }


def test_a_trainer_of_this_package(tmp_path):
    labels = {"source": "weighted", "smoothing": "boundary", "epsilon": 0.5}
    loss = {"overlap": "jml", "class_weights": (1, 2), "deep_supervision": False}
    said = options(labels=labels, loss=loss, training={"seed": 1234})
    asked = {"labels": {"source": "weighted"}, "training": {"seed": 1234}}
    folder = write_model(tmp_path / "nnUNetTrainerJML__short__2d", plans={"nnunet_dml": asked}, **said)
    (folder / "fold_1" / "checkpoint_final.pth").unlink()
    facts = {
        "labels": "weighted, smoothed near boundaries by 0.5",
        "loss": "0.5 × cross-entropy + 1.5 × jml, no deep supervision",
        "epochs": 8,
        "iterations": 25,
        "seed": 1234,
    }
    assert training_of(folder, ["0", "1"]) == {
        "model": "nnUNetTrainerJML__short__2d",
        "trainer": "nnUNetTrainerJML",
        "plans": "short",
        "configuration": "2d",
        "options": asked,
        "folds": {"0": {**facts, "finished": True}, "1": {**facts, "finished": False}},
    }


def test_trainers_with_nnunets_own_labels_and_loss(tmp_path):
    """Whose options, where they have any, name a loss that they do not read."""
    for name, said in (("nnUNetTrainer", {}), ("nnUNetTrainerConfigured", options(["training"]))):
        folder = write_model(tmp_path / f"{name}__short__2d", folds="0", loss=STOCK_LOSS, **said)
        facts = training_of(folder, ["0"])["folds"]["0"]
        expected = {"labels": "hard", "loss": "DC_and_CE_loss", "epochs": 8, "iterations": 25, "seed": None}
        assert facts == {**expected, "finished": True}


@pytest.mark.parametrize(
    ("name", "known"), [("nnUNetTrainer_100epochs", True), ("nnUNetTrainerMySoft", False)]
)
def test_labels_and_seed_of_a_trainer_that_nobody_knows_are_not_known(tmp_path, name, known):
    folder = write_model(tmp_path / f"{name}__short__2d", folds="0", loss="MySoftLoss()")
    facts = training_of(folder, ["0"])["folds"]["0"]
    assert facts["loss"] == "MySoftLoss"
    assert ("labels" in facts, "seed" in facts) == (known, known)


def test_a_teacher_is_named(tmp_path):
    teacher = {"model": "Dataset501_X/nnUNetTrainer__short__2d"}
    said = options(["labels", "loss", "teacher", "training"], teacher=teacher)
    folder = write_model(tmp_path / "nnUNetTrainerDML_KD__short__2d", folds="0", **said)
    assert training_of(folder, ["0"])["folds"]["0"]["teacher"] == "nnUNetTrainer__short__2d"


def test_a_renamed_folder_and_a_calibrated_one(tmp_path):
    name = "nnUNetTrainerDML__short__2d"
    folder = write_model(tmp_path / name, folds="0", **options(labels={"source": "uniform"}))
    expected = training_of(folder, ["0"])
    renamed = folder.rename(tmp_path / "best")
    assert training_of(renamed, ["0"]) == expected
    calibrated = tmp_path / "calibrated"
    calibrated.mkdir()
    (calibrated / RECORD).write_text(json.dumps({"source": str(renamed), "cross_fitted": True}))
    assert training_of(calibrated, ["0"]) == {**expected, "calibrated": True}
    (calibrated / RECORD).write_text(json.dumps({"source": f"/gone/{name}"}))
    found = training_of(calibrated, ["0"])
    assert (found["model"], found["trainer"], found["calibrated"]) == (name, "nnUNetTrainerDML", True)
    assert found["folds"] == {"0": {}}


def test_what_was_not_noted_is_not_known(tmp_path):
    """Without debug.json, and in that of older versions; plans lack the trainer's defaults, such as its smoothing."""
    asked = {"labels": {"source": "uniform"}, "training": {"epochs": 30}}
    said = options(labels={"source": "uniform"}, training={"seed": 3})
    del said["options_json"]
    name = "nnUNetTrainerDML_LS__short__2d"
    folder = write_model(tmp_path / name, plans={"nnunet_dml": asked}, loss="TargetLoss(\n)", **said)
    (folder / "fold_1" / "debug.json").unlink()
    found = training_of(folder, ["0", "1"])
    schedule = {"epochs": 8, "iterations": 25}
    assert found["folds"] == {"0": {**schedule, "finished": True}, "1": {"finished": True}}
    assert found["options"] == asked


def test_what_nnunet_writes_of_our_trainer_is_read(tmp_path):
    trainer = object.__new__(nnUNetTrainerDML)
    values = {"labels": {"source": "staple"}, "loss": {"class_weights": [1, 2]}, "training": {"seed": 5}}
    given = {"options": Options.model_validate(values), "source": "staple", "local_rank": 0, "num_epochs": 30}
    vars(trainer).update(given, device=torch.device("cpu"), output_folder=str(tmp_path / "fold_0"))
    (tmp_path / "fold_0").mkdir()
    trainer._save_debug_information()
    expected = {"labels": "staple", "loss": "0.5 × cross-entropy + 1.5 × dml", "epochs": 30, "seed": 5}
    assert training_of(tmp_path, ["0"])["folds"]["0"] == {**expected, "finished": False}


@pytest.mark.parametrize(
    "said",
    [
        "{",
        "[]",
        '{"options": "", "option_groups": 3, "options_json": "[1]"}',
        '{"options": "", "options_json": {"labels": {"source": "uniform"}}}',
        '{"options": "((((", "num_epochs": "many", "num_iterations_per_epoch": null, "loss": 1}',
        '{"options": 1, "options_json": "{\\"labels\\": 3, \\"loss\\": []}", "output_folder_base": null}',
        json.dumps({"options": "", "options_json": "[" * 90000}),
    ],
)
def test_what_is_damaged_is_not_known(tmp_path, said):
    folder = write_model(tmp_path / "a__short__2d", plans={"nnunet_dml": 3}, folds="0")
    (folder / "fold_0" / "debug.json").write_text(said)
    (folder / "plans.json").write_text('{"nnunet_dml": 3}')
    found = training_of(folder, ["0"])
    assert found["options"] == {}
    assert found["folds"]["0"].keys() == {"finished"}


def test_evaluate_writes_it_for_models_only(environment):
    world = World(environment)
    write_model(world.model, **options(labels={"source": "weighted"}))
    world.run()
    training = world.summary()["training"]
    assert training["model"] == MODEL
    assert [it["labels"] for it in training["folds"].values()] == ["weighted", "weighted"]
    world.run(source=("--predictions", str(world.model / "fold_0" / "validation")))
    assert "training" not in world.summary()
