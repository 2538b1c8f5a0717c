"""Small data sets with unlabelled images, and trainers on them."""

from __future__ import annotations

import numpy as np

from nnunet_dml.nnunet import trainers
from nnunet_dml.nnunet.options import merge
from tests.conftest import set_folders
from tests.nnunet import mode_helpers as here
from tests.nnunet.mode_helpers import disc, write_image

SIDE = 32


def scene(number, side=SIDE, dimensions=2, channels=1):
    """An image of two nested balls, its labels, and where anything is: outside a larger ball it is 0."""
    noise = np.random.default_rng(number)
    shape = (side,) * dimensions
    centre = (0.05 * (number % 5), *[0.1] * (dimensions - 1))
    labels = np.zeros(shape, np.uint8)
    labels[disc(shape, 0.5, centre)] = 1
    labels[disc(shape, 0.25, centre)] = 2
    body = disc(shape, 1.01)
    images = [
        ((100 + 40 * labels + noise.normal(0, 5, shape)) * body).astype(np.float32) for _ in range(channels)
    ]
    return images, labels


def make_world(
    patch,
    base,
    dataset,
    *,
    labelled=6,
    unlabelled=4,
    dimensions=2,
    channels=1,
    batch_size=2,
    labels=None,
    ignored=False,
):
    """A data set in nnU-Net's folders, planned, preprocessed; plans `tiny`.

    With `ignored` the last third of each label map has the ignore label 3.

    Returns:
        raw, preprocessed, results: nnU-Net's folders; name: of the data set; number: its id.
    """
    folders = set_folders(patch, base)
    folders.name, folders.number = dataset, int(dataset[7:10])
    folders.dimensions, folders.configuration = dimensions, "2d" if dimensions == 2 else "3d_fullres"
    raw = folders.raw / dataset
    scenes = {
        f"case{i}": scene(i, SIDE if dimensions == 2 else 16, dimensions, channels)
        for i in range(labelled + unlabelled)
    }
    known = dict(list(scenes.items())[:labelled])
    for _, mask in known.values():
        mask[SIDE * 2 // 3 :] = 3 if ignored else mask[SIDE * 2 // 3 :]
    here.write_raw(
        raw,
        {case: images for case, (images, _) in known.items()},
        {case: {} for case in known},
        {case: mask for case, (_, mask) in known.items()},
        labels or {"background": 0, "rim": 1, "core": 2},
    )
    here.edit_json(raw / "dataset.json", lambda content: content.pop("nnunet_dml"))
    for case, (images, _) in scenes.items():
        for channel, image in enumerate(images):
            if case not in known:
                write_image(raw / "imagesUnlabelledTr" / f"{case}_{channel:04d}.nii.gz", image)
    here.plan(folders.number)
    with here.threads_for_processes():
        here.stock.preprocess(
            [folders.number],
            "nnUNetPlans",
            [folders.configuration],
            num_processes=[1],
            show_progress_bar=False,
        )
    here.command("preprocess", "-d", folders.number, "-c", folders.configuration, "-np", "1")
    here.configure(folders.number, "tiny", batch_size=batch_size)
    return folders


def enter(patch, world):
    """Let nnU-Net's variables name the folders of a world, as another one may have been made since."""
    for name in ("raw", "preprocessed", "results"):
        patch.setenv(f"nnUNet_{name}", str(getattr(world, name)))
    return world


def build(world, name="nnUNetTrainerDML_SSL", *, start=True, plans="tiny", described_as=None, **groups):
    """A trainer as nnU-Net makes it; `groups` are options, `described_as` goes over dataset.json."""
    folder = world.preprocessed / world.name
    content, described = here.read_json(folder / f"{plans}.json"), here.read_json(folder / "dataset.json")
    content |= {"continue_training": False, "nnunet_dml": merge(content.get("nnunet_dml", {}), groups)}
    described |= described_as or {}
    trainer = getattr(trainers, name)(content, world.configuration, 0, described, here.CPU)
    if start:
        trainer.initialize()
        trainer.on_train_start()
        trainer.network.train()
    return trainer
