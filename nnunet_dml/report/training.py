"""How the models were trained, as their evaluations' summaries say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.report.tables import Cell, Table

UNKNOWN = "–"
NOT_KNOWN = "not known"
"""The model of predictions without it, or of a summary of an older version; what a training did not note."""
ROWS = {"Model": "model", "Trainer": "trainer", "Plans": "plans", "Configuration": "configuration"}
"""What is said of the model as a whole, by its key in the summary."""


def training_of(model: Evaluation) -> Mapping[str, Any]:
    """The summary's block `training`; empty for a folder of predictions, and for summaries of older versions."""
    found = model.summary.get("training")
    return found if isinstance(found, dict) else {}


def full_name(model: Evaluation) -> str:
    """TRAINER__PLANS__CONFIGURATION of the model; empty where nobody knows."""
    return str(training_of(model).get("model", ""))


def training_table(models: Sequence[Evaluation]) -> Table | None:
    """A row per fact, a column per model; what differs between folds is said of each. None where nothing is known."""
    if not any(map(full_name, models)):
        return None
    columns = [_facts(training_of(it)) for it in models]
    table = Table("How the models were trained", ["Fact", *(it.name for it in models)])
    for fact in dict.fromkeys(fact for column in columns for fact in column):
        table.add([Cell(fact), *(Cell(column.get(fact, UNKNOWN)) for column in columns)])
    return table


def _facts(training: Mapping[str, Any]) -> dict[str, str]:
    """What is known of one model, by the row's name."""
    found = {fact: str(training[key]) for fact, key in ROWS.items() if key in training}
    if not found:
        return {"Model": NOT_KNOWN}
    folds = training.get("folds")
    by_fold = (
        {fold: it for fold, it in folds.items() if isinstance(it, dict)} if isinstance(folds, dict) else {}
    )
    found["Folds"] = ", ".join(
        fold + (" (not trained to the end)" if it.get("finished") is False else "")
        for fold, it in by_fold.items()
    )
    each = [_of_fold(it) for it in by_fold.values()]
    for fact in dict.fromkeys(fact for it in each for fact in it):
        said = {fold: it.get(fact, UNKNOWN) for fold, it in zip(by_fold, each, strict=True)}
        same = len(set(said.values())) == 1
        found[fact] = (
            next(iter(said.values()))
            if same
            else "; ".join(f"fold {fold}: {it}" for fold, it in said.items())
        )
    if training.get("calibrated"):
        found["Calibrated afterwards"] = "yes"
    return found


def _of_fold(fold: Mapping[str, Any]) -> dict[str, str]:
    found = {fact: str(fold.get(key, NOT_KNOWN)) for fact, key in (("Labels", "labels"), ("Loss", "loss"))}
    if "teacher" in fold:
        found["Teacher"] = str(fold["teacher"])
    if "epochs" in fold or "iterations" in fold:
        found["Epochs × iterations"] = " × ".join(str(fold.get(it, "?")) for it in ("epochs", "iterations"))
    seed = fold.get("seed", NOT_KNOWN)
    found["Seed"] = "none set" if seed is None else str(seed)
    return found
