"""A trained model as a zip that nnU-Net installs and predicts with on its own, without this package.

nnU-Net looks up the trainer class by the name in the checkpoint, only to build the network. All trainers of this
package build nnU-Net's own, so the name `nnUNetTrainer` and the weights are all that prediction needs.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from nnunet_dml import __version__
from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file, clear_leftovers
from nnunet_dml.nnunet.option_groups import Options
from nnunet_dml.nnunet.options import KEY, complete, merge
from nnunet_dml.nnunet.trained_model import FINAL, TrainedModel, previous_stage, read_model, stock_name
from nnunet_dml.nnunet.trainers import nnUNetTrainerConfigured

_POSTPROCESSING = ("postprocessing.pkl", "postprocessing.json")


@dataclass(frozen=True)
class Exported:
    """One model in the zip."""

    record: dict[str, Any]
    """What `nnunet_dml.json` says: trainer, stock_trainer, dataset, plans, configuration, folds, options …"""
    bytes_before: int
    """Size of its checkpoints as trained."""
    bytes_after: int
    """Size of its checkpoints as exported, before compression."""
    notes: tuple[str, ...]


def export(
    model: Path,
    output: Path,
    *,
    folds: Sequence[str] | None = None,
    checkpoint: str = FINAL,
    overwrite: bool = False,
    extras: Mapping[str, bytes] | None = None,
) -> list[Exported]:
    """Write a model's zip, with the previous stages of a cascade in front of it.

    The checkpoints keep what prediction reads and lose the rest (optimizer, training curves). Left out, too, are
    validation folders, logs and the list of cases and raters in dataset.json, which nothing reads at prediction and
    which may name people. The same input gives the same bytes.

    Args:
        model: The results folder, with plans.json, dataset.json and fold_0, fold_1, …
        output: The zip to write; its folder must exist.
        folds: `0`, `1`, …, `all`; None takes all numbered ones, or fold_all where there are none.
        checkpoint: Name of the checkpoint in each fold.
        overwrite: Whether `output` may be replaced.
        extras: Further files of this model, by their path in its folder.

    Returns:
        The models in the zip, in the order in which they predict.

    Raises:
        InputError: `output` cannot be written; the model, a fold or a checkpoint is missing, damaged or was not
            trained as the others; its trainer's network is not nnU-Net's.
    """
    _check_output(output, overwrite)
    models = [read_model(model.resolve(), folds, checkpoint)]
    while previous := previous_stage(models[0]):
        same_folds = [path.parent.name.removeprefix("fold_") for path in models[0].checkpoints]
        models.insert(0, read_model(previous, same_folds, checkpoint))
    clear_leftovers(output.parent, output.name)
    with atomic_file(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        return [_add(archive, it, extras or {} if it is models[-1] else {}) for it in models]


def _check_output(output: Path, overwrite: bool) -> None:
    where = f"-o {output}"
    if not output.parent.is_dir():
        expected = f"a folder {output.parent} to write to"
        raise InputError(problem(where, expected=expected, found="none", todo="Make it first."))
    if output.is_dir():
        raise InputError(problem(where, expected="a file to write", found="a folder"))
    if output.suffix.lower() != ".zip":  # --overwrite would replace a checkpoint
        found = output.suffix or "no ending"
        raise InputError(problem(where, expected="a file that ends in .zip", found=found))
    if output.exists() and not overwrite:
        todo = "Give another -o, or --overwrite."
        raise InputError(problem(where, expected="a new file", found="an existing one", todo=todo))


def _add(archive: zipfile.ZipFile, model: TrainedModel, extras: Mapping[str, bytes]) -> Exported:
    """Write one model into the zip."""
    model = _without_places(model)
    record = _record(model)
    dataset_json = {key: value for key, value in model.dataset_json.items() if key != KEY}
    base = "{dataset}/{stock_trainer}__{plans}__{configuration}".format_map(record)

    def put(name: str, content: bytes) -> None:
        archive.writestr(_entry(f"{base}/{name}"), content)

    put("plans.json", json.dumps(model.plans, indent=4).encode())
    put("dataset.json", json.dumps(dataset_json, indent=4).encode())
    put("nnunet_dml.json", json.dumps(record, indent=4).encode())
    fingerprint = model.folder / "dataset_fingerprint.json"
    if fingerprint.is_file():
        put(fingerprint.name, fingerprint.read_bytes())
    for name, content in sorted(extras.items()):
        put(name, content)
    own = f"crossval_results_folds_{'_'.join(record['folds'])}"
    notes = []
    for path in sorted(it for name in _POSTPROCESSING for it in model.folder.rglob(name)):
        inside = path.relative_to(model.folder)
        if inside.parent in (Path(), Path(own)):
            put(inside.as_posix(), path.read_bytes())
        elif len(inside.parts) == 2 and path.suffix == ".pkl":
            notes.append(f"{inside} is left out: it is for other folds")
    after = 0
    for path, content in tqdm(model.checkpoints.items(), desc=base, unit="fold", disable=None):
        name = f"{base}/{path.parent.name}/{path.name}"
        with archive.open(_entry(name), "w", force_zip64=True) as stream:
            torch.save(_slim(content, model.plans, dataset_json, record), stream)
        after += archive.getinfo(name).file_size
    before = sum(path.stat().st_size for path in model.checkpoints)
    return Exported(record, before, after, tuple(notes))


def _without_places(model: TrainedModel) -> TrainedModel:
    """A model whose options name its teacher, but not where that lies on the author's machine."""
    teacher = model.plans.get(KEY, {}).get("teacher", {})
    if not teacher.get("model"):
        return model
    named = merge(model.plans[KEY], {"teacher": {"model": Path(teacher["model"]).name}})
    return replace(model, plans={**model.plans, KEY: named})


def _entry(name: str) -> zipfile.ZipInfo:
    """An entry without the time of day, readable by all."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _record(model: TrainedModel) -> dict[str, Any]:
    """Where a model comes from, for its checkpoints and for a file that people read."""
    record: dict[str, Any] = {
        "trainer": model.trainer.__name__,
        "stock_trainer": stock_name(model.trainer),
        "dataset": model.plans["dataset_name"],
        "plans": model.plans["plans_name"],
        "configuration": model.configuration,
        "checkpoint": next(iter(model.checkpoints)).name,
        "folds": {
            path.parent.name.removeprefix("fold_"): {"epochs": content.get("current_epoch")}
            for path, content in model.checkpoints.items()
        },
        "exported_by": {"nnunet_dml": __version__, "nnunetv2": version("nnunetv2")},
    }
    if issubclass(model.trainer, nnUNetTrainerConfigured):
        options = merge(
            Options().model_dump(), complete(model.trainer.default_options, model.plans.get(KEY, {}))
        )
        record["options"] = {group: options[group] for group in model.trainer.option_groups}
    return record


def _slim(
    content: dict[str, Any], plans: dict[str, Any], dataset_json: dict[str, Any], record: dict[str, Any]
) -> dict[str, Any]:
    """A checkpoint of nothing but weights and plain values, with all that nnU-Net reads to predict."""
    return {
        "network_weights": content["network_weights"],
        "init_args": {
            "plans": plans,
            "configuration": record["configuration"],
            "fold": content["init_args"]["fold"],
            "dataset_json": dataset_json,
            "device": torch.device("cpu"),
        },
        "trainer_name": record["stock_trainer"],
        "inference_allowed_mirroring_axes": content.get("inference_allowed_mirroring_axes"),
        "current_epoch": content.get("current_epoch"),
        KEY: record,
    }
