"""Where a report's figures come from: data, options, empty masks, versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.report.tables import Cell, Table, measure_of

EMPTY = {
    "pairs_of_case_and_class": "Pairs of case and class",
    "reference_empty": "… whose reference is empty",
    "prediction_empty": "… whose prediction is empty",
    "dice_decided_by_policy": "… whose Dice the rule for two empty masks decided",
    "bdice_thresholds": "Thresholds of all of these",
    "bdice_thresholds_decided_by_policy": "… at which the rule for two empty masks decided",
    "volume_bias_undefined": "Volume biases that are undefined, as the reference is empty",
    "ece_undefined": "ECEs that are undefined, as no voxel counts",
}

OPTIONS = {
    "bins": "Bins of the calibration errors",
    "thresholds": "Thresholds of BDice",
    "neighbourhood": "Neighbourhood that makes a boundary (voxels along each axis)",
    "reference": "Soft reference asked for",
    "surfaces": "Surface distances measured",
    "tolerance": "Tolerance of surface Dice (mm)",
}


def about_tables(models: Sequence[Evaluation]) -> list[Table]:
    """Where the figures come from, what empty masks decided, versions."""

    def table(caption: str, rows: dict[str, list[object]]) -> Table:
        """A fact that is the same for all models stands once."""
        found = Table(caption, ["Fact", "Value"])
        for name, values in rows.items():
            if all(value == values[0] for value in values):
                found.add([Cell(name), Cell(_said(values[0]))])
            else:
                for model, value in zip(models, values, strict=True):
                    found.add([Cell(f"{name}, {model.name}"), Cell(_said(value))])
        return found

    def each(*keys: str) -> list[object]:
        found: list[object] = []
        for model in models:
            value: Any = model.summary
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            found.append(value)
        return found

    def keys_of(key: str) -> list[str]:
        return list(dict.fromkeys(name for it in each(key) if isinstance(it, dict) for name in it))

    data: dict[str, list[object]] = {
        "Data set": each("dataset"),
        "Predictions": each("source"),
        "Evaluation": [str(model.folder) for model in models],
        "Cases": [len(model.records) for model in models],
        "Folds": [", ".join(sorted({r.fold for r in model.records if r.fold})) or None for model in models],
        "Soft reference": each("raters", "soft_reference"),
        "Raters per case": [_span(it) for it in each("raters", "per_case")],
        "Ignored voxels": each("ignored_voxels"),
        **{OPTIONS.get(key, f"Option {key}"): each("options", key) for key in keys_of("options")},
    }
    empty = {
        EMPTY.get(key, key.replace("_", " ").capitalize()): each("empty", key) for key in keys_of("empty")
    }
    undefined = {
        f"Undefined: {measure_of(key).title}": each("undefined", key) for key in keys_of("undefined")
    }
    found = [
        table("Data and options", data),
        table("Empty masks and undefined values", {**empty, **undefined}),
    ]
    return [*found, table("Versions", {key: each("versions", key) for key in keys_of("versions")})]


def _span(value: object) -> str | None:
    if not isinstance(value, dict) or not {"min", "max"} <= set(value):
        return None
    low, high = value["min"], value["max"]
    return f"{low}" if low == high else f"{low} to {high}"


def _said(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(_said, value)) if isinstance(value, list) else str(value)
