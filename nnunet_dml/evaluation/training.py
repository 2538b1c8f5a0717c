"""How a model was trained, as far as its folder says: from JSON files and names only; checkpoints stay closed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError
from nnunet_dml._files import read_json
from nnunet_dml.evaluation.calibrated.outputs import RECORD
from nnunet_dml.evaluation.predictions import FINAL

OPTIONS = "nnunet_dml"
"""The block of plans.json with the options of this package's trainers."""
NOTED = "options_json"
"""The attribute of these trainers, and thus the key of debug.json, that has all options that they read."""


STOCK = re.compile(r"nnUNetTrainer(_\d+epochs?)?")
"""Trainers without options of ours that are known to learn hard labels and to set no seed: nnU-Net's own."""


def training_of(folder: Path, folds: Iterable[str]) -> dict[str, Any]:
    """What is known of a model's training; what is not known is absent.

    Args:
        folder: The model's, or one that `calibrate apply --cross-fitted` made of it.
        folds: The folds whose cases are evaluated, `0`, `1`, …

    Returns:
        What JSON can hold: `model` (TRAINER__PLANS__CONFIGURATION), `trainer`, `plans`, `configuration`; `calibrated`
        (true after `calibrate apply`); `options` (the plans' block); and `folds`, for each fold `labels`, `loss`,
        `teacher` (of distillation), `epochs`, `iterations` (of an epoch), `seed` (None: none was set) and `finished`
        (whether it has its final checkpoint).
    """
    record = _json(folder / RECORD)
    source = Path(str(record["source"])) if "source" in record else folder
    model = source if source.is_dir() else folder
    plans = _json(model / "plans.json")
    debug = {fold: _json(model / f"fold_{fold}" / "debug.json") for fold in folds}
    name = _name(source, debug.values())
    found: dict[str, Any] = {"model": name}
    if name.count("__") == 2:
        found |= zip(("trainer", "plans", "configuration"), name.split("__"), strict=True)
    if "plans_name" in plans:
        found["plans"] = str(plans["plans_name"])
    if record:
        found["calibrated"] = True
    options = plans.get(OPTIONS)
    found["options"] = options if isinstance(options, dict) else {}
    found["folds"] = {
        fold: _facts(it, stock=STOCK.fullmatch(name.split("__")[0]) is not None)
        | ({"finished": (model / f"fold_{fold}" / FINAL).is_file()} if model == source else {})
        for fold, it in debug.items()
    }
    return found


def _name(source: Path, debug: Iterable[Mapping[str, Any]]) -> str:
    """The folder's name; where it was renamed, the name that it was trained under."""
    trained = (Path(str(it["output_folder_base"])).name for it in debug if "output_folder_base" in it)
    names = [source.name, *trained]
    return next((it for it in names if it.count("__") == 2), names[0])


def _facts(debug: Mapping[str, Any], *, stock: bool) -> dict[str, Any]:
    """A fold's training: what nnU-Net noted when it began."""
    found: dict[str, Any] = {}
    for key, noted in (("epochs", "num_epochs"), ("iterations", "num_iterations_per_epoch")):
        with suppress(KeyError, ValueError, TypeError):
            found[key] = int(debug[noted])
    ours = "options" in debug
    groups = _groups(debug.get(NOTED)) if ours else {}
    if not debug or (ours and not groups):  # an older version of this package noted no JSON
        return found
    labels, loss, teacher, training = (
        _dict(groups.get(it)) for it in ("labels", "loss", "teacher", "training")
    )
    if "labels" not in groups and (ours or stock):
        labels = {"source": "hard"}
    if "source" in labels:
        found["labels"] = str(labels["source"]) + _smoothing(labels)
    if {"overlap", "weight_ce", "weight_overlap"} <= loss.keys():
        found["loss"] = _loss(loss)
    elif "loss" not in groups and (own := _own_loss(str(debug.get("loss", "")))):
        found["loss"] = own
    if name := teacher.get("model") or teacher.get("maps"):
        found["teacher"] = Path(str(name)).name
    if "seed" in training or stock:
        found["seed"] = training.get("seed")
    return found


def _smoothing(labels: Mapping[str, Any]) -> str:
    kind = labels.get("smoothing", "off")
    if kind == "off":
        return ""
    where = "near boundaries" if kind == "boundary" else "everywhere"
    return f", smoothed {where}" + (f" by {labels['epsilon']}" if "epsilon" in labels else "")


def _loss(loss: Mapping[str, Any]) -> str:
    overlap = str(loss["overlap"])
    terms = {"cross-entropy": loss["weight_ce"], overlap: loss["weight_overlap"]}
    text = " + ".join(f"{weight} × {name}" for name, weight in terms.items() if weight)
    return text + ("" if loss.get("deep_supervision", True) else ", no deep supervision")


def _own_loss(text: str) -> str:
    """The class of a loss that no option names, as PyTorch prints it; of nnU-Net's what its wrapper holds."""
    names = [it for it in re.findall(r"(\w+)\(", text) if it != "DeepSupervisionWrapper"]
    return names[0] if names else ""


def _groups(text: Any) -> dict[str, Any]:
    """The groups of options that the trainer read; none where they were not noted or the note is damaged."""
    with suppress(TypeError, ValueError, RecursionError):
        return _dict(json.loads(text))
    return {}


def _json(path: Path) -> dict[str, Any]:
    """What is in a file; nothing where it is missing or damaged: an evaluation does not depend on it."""
    with suppress(InputError):
        return read_json(path)
    return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
