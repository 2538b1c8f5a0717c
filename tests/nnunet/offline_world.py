"""A coarse teacher and a finer student of it, for an offline teacher's maps."""

from __future__ import annotations

import json

import numpy as np
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_dml.cli.main import main
from nnunet_dml.nnunet import trainers
from nnunet_dml.nnunet.options import merge
from tests.nnunet import mode_helpers as here
from tests.nnunet.mode_helpers import disc

TEACHER = "nnUNetTrainerConfigured__coarse__2d"
SETS = {
    970: ("Labels", {"background": 0, "rim": 1, "core": 2}),
    971: ("Regions", {"background": 0, "whole": [1, 2], "core": [2]}),
}


def make(folders, number):
    """A data set with a teacher of fold 0 on a grid of half the resolution, and plans `fine` of a student."""
    name, labels = SETS[number]
    dataset, shape = f"Dataset{number}_{name}", (32, 32)
    images, raters, noise = {}, {}, np.random.default_rng(0)
    for i in range(5):
        mask = np.zeros(shape, np.uint8)
        mask[disc(shape, 0.5, (0.05 * i, 0.1))] = 1
        mask[disc(shape, 0.25, (0.05 * i, 0.1))] = 2
        raters[f"case{i}"] = {"a": mask, "b": np.roll(mask, 2, 0)}
        images[f"case{i}"] = [(100 + 50 * mask + noise.normal(0, 5, shape)).astype(np.float32)]
    more = {"regions_class_order": [1, 2]} if "whole" in labels else {}
    consensus = {case: masks["a"] for case, masks in raters.items()}
    here.write_raw(folders.raw / dataset, images, raters, consensus, labels, **more)
    here.plan(number)
    here.preprocess(number, ["2d"], ["uniform", "random"])
    coarse = here.read_json(folders.preprocessed / dataset / "nnUNetPlans.json")
    coarse["plans_name"] = "coarse"
    coarse["configurations"]["2d"] |= {"spacing": [2.0, 2.0], "data_identifier": "coarse_2d"}
    (folders.preprocessed / dataset / "coarse.json").write_text(json.dumps(coarse))
    with here.threads_for_processes():
        here.stock.preprocess([number], "coarse", ["2d"], num_processes=[1], show_progress_bar=False)
    edit = folders.preprocessed / dataset / "coarse.json"
    here.configure(number, "narrow", plans="coarse")
    narrow = here.read_json(folders.preprocessed / dataset / "narrow.json")
    edit.write_text(json.dumps(narrow | {"plans_name": "coarse"}))
    here.train(number, "2d", "coarse", "nnUNetTrainerConfigured")
    here.configure(number, "fine")
    return dataset


def teach(world, *more, number=970, name="plain", status=0):
    world.dataset(number)
    arguments = ["teach", "-d", number, "-p", "fine", "-c", "2d", "-f", "0", "--name", name,
                 "--teacher", TEACHER, "-device", "cpu", "--disable_tta", *more]  # fmt: skip
    assert main([str(it) for it in arguments]) == status


def maps_of(world, name, number=970, fold=0):
    return world.preprocessed / world.dataset(number) / "nnUNetPlans_2d_soft" / f"teacher_{name}_fold_{fold}"


def build(world, number=970, name="plain", fold=0, *, start=True, **groups):
    """A student."""
    folder = world.preprocessed / world.dataset(number)
    plans = here.read_json(folder / "fine.json")
    options = merge(plans["nnunet_dml"], {"teacher": {"maps": name}}, groups)
    plans |= {"continue_training": False, "nnunet_dml": options}
    trainer = trainers.nnUNetTrainerDML_KD(
        plans, "2d", fold, here.read_json(folder / "dataset.json"), here.CPU
    )
    if start:
        trainer.initialize()
        trainer.on_train_start()
    return trainer


def by_nnunet(world, number, case):
    """(C, 1, y, x): the teacher's probabilities as nnU-Net's own predictor gives them."""
    predictor = nnUNetPredictor(device=here.CPU, use_mirroring=False, allow_tqdm=False)
    model = world.results / world.dataset(number) / TEACHER
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    reader = predictor.plans_manager.image_reader_writer_class()
    image = world.raw / world.dataset(number) / "imagesTr" / f"{case}_0000.nii.gz"
    return predictor.predict_single_npy_array(*reader.read_images([str(image)]), None, None, True)[1]
