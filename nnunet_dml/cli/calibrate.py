"""`nnunet-dml calibrate`: fit a calibrator on a model's validation cases, and apply it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_dml.cli._arguments import add_processes

if TYPE_CHECKING:
    from nnunet_dml.evaluation.calibrated.fit import Fitted

HELP = "Calibrate a trained model by its validation cases: fit, then apply to its probabilities."
METHODS = ("auto", "temperature", "vector", "kernel", "isotonic", "none")
MOST_KEYS = 100_000
"""Every voxel of every prediction is compared with each of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two sub-commands."""
    parts = parser.add_subparsers(dest="part", metavar="fit|apply", required=True)
    text = "Fit on the out-of-fold probabilities of all folds (train with --npz) and store in the model's folder."
    fit = parts.add_parser("fit", help=text, description=text)
    _add_model(fit)
    fit.add_argument(
        "--method",
        choices=METHODS,
        default="auto",
        help="auto: the one with the lowest Brier score on the folds that did not fit it, none included (default)",
    )
    fit.add_argument(
        "--keys",
        type=int,
        default=1000,
        metavar="N",
        help=f"voxels that `kernel` keeps, 2 to {MOST_KEYS} (default: %(default)s)",
    )
    fit.add_argument(
        "--reference",
        choices=("auto", "raters", "softlabels", "labels"),
        default="auto",
        help="what probabilities should mean: the share of the case's raters, its map in softlabelsTr, or labelsTr; "
        "auto (default): the first of these that there is",
    )
    fit.add_argument("--json", action="store_true", help="print calibration.json instead of a table")
    add_processes(fit)
    text = "Apply a model's calibrator to its probabilities (.npz)."
    apply = parts.add_parser("apply", help=text, description=text)
    _add_model(apply)
    source = apply.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "-i",
        dest="input",
        type=Path,
        metavar="FOLDER",
        help="predictions of the model, by nnUNetv2_predict --save_probabilities",
    )
    source.add_argument(
        "--cross-fitted",
        action="store_true",
        help="the model's own validation cases, each by the calibrator that has not seen its fold, for "
        "`nnunet-dml evaluate --model OUT`",
    )
    apply.add_argument("-o", dest="output", required=True, type=Path, metavar="OUT", help="folder to write")
    add_processes(apply)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="results folder of a trained model; with -d its name TRAINER__PLANS__CONFIGURATION in nnUNet_results",
    )
    parser.add_argument("-d", "--dataset", metavar="ID", help="id or name of the data set")


def run(args: argparse.Namespace) -> None:
    """Fit or apply; say what came of it."""
    model, dataset = find_model(args.model, args.dataset)
    (_fit if args.part == "fit" else _apply)(args, model, dataset)


def find_model(model: str, dataset: str | None) -> tuple[Path, str]:
    """A model's folder, and the name of its data set.

    Raises:
        InputError: There is no such folder, or it is none of a trained model.
    """
    from nnunet_dml._files import read_json
    from nnunet_dml._folders import environment_folder, find_dataset
    from nnunet_dml.evaluation import predictions

    folder = predictions.find_model(model, dataset)
    todo = "Give the folder TRAINER__PLANS__CONFIGURATION of a trained model."
    plans = read_json(folder / "plans.json", todo=todo)
    if dataset is not None and dataset.startswith("Dataset"):
        return folder, dataset
    if dataset is not None:
        return folder, find_dataset(dataset, environment_folder("nnUNet_raw")).name
    return folder, str(plans.get("dataset_name", folder.parent.name))


def _fit(args: argparse.Namespace, model: Path, dataset_name: str) -> None:
    from nnunet_dml._checks import InputError, problem
    from nnunet_dml._folders import environment_folder, find_dataset
    from nnunet_dml.evaluation.calibrated import store
    from nnunet_dml.evaluation.calibrated.fit import SIZE, dataset_of, fit

    if not 2 <= args.keys <= MOST_KEYS:
        raise InputError(problem("--keys", expected=f"2 to {MOST_KEYS} voxels", found=str(args.keys)))
    dataset = dataset_of(model, find_dataset(dataset_name, environment_folder("nnUNet_raw")))
    fitted = fit(
        model, dataset, method=args.method, keys=args.keys, reference=args.reference, processes=args.processes
    )
    options = {"method": args.method, "keys": args.keys, "reference": args.reference, "size": SIZE}
    folder = store.write(model, dataset, fitted, options=options)
    if args.json:
        print((folder / store.RECORD).read_text(encoding="utf-8"), end="")
        return
    print(f"{dataset.name}, {model.name}\n")
    print(table(fitted))
    for note in fitted.notes:
        print(f"Note: {note}.")
    print(f"\nWritten: {folder}")


def table(fitted: Fitted) -> str:
    """The cross-fitted figures of all methods that were tried, and what was chosen."""
    from nnunet_dml.evaluation.summary import SOFT_REFERENCES

    reference = " or ".join(SOFT_REFERENCES[it] for it in fitted.reference)
    own = {name: it.method for name, it in fitted.without.items()}
    head = ["method", "Brier", "ECE %", "NLL"]
    rows = [
        [
            f"{name}{' (before)' if name == 'none' else ''}{' *' if name == fitted.method else ''}",
            *_cells(figures),
        ]
        for name, figures in fitted.figures.items()
    ]
    if set(own.values()) != {fitted.method}:
        rows.append(["chosen without the group", *_cells(fitted.after)])
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]
    cases = sum(len(it.cases) for it in fitted.groups)
    lines += [
        "",
        f"Each group of cases measured with what the others fitted ({len(fitted.groups)} groups, {cases} cases), "
        f"against {reference};",
        f"estimated on {fitted.rows} of {fitted.voxels} voxels, lower is better. * stored.",
    ]
    if set(own.values()) != {fitted.method}:
        others = ", ".join(f"{name}: {method}" for name, method in own.items() if method != fitted.method)
        lines.append(f"Without a group another method was best: {others}.")
    if fitted.method == "none":
        lines.append("No calibration is better than any other here: probabilities stay as they are.")
    elif fitted.calibrator.keeps_argmax:
        lines.append("The segmentation stays as it is.")
    else:
        lines.append("The segmentation may change where two classes are nearly as likely.")
    return "\n".join(lines)


def _cells(figures: dict[str, float]) -> list[str]:
    return [f"{figures['brier']:.5f}", f"{100 * figures['ece']:.3f}", f"{figures['nll']:.5f}"]


def _apply(args: argparse.Namespace, model: Path, dataset_name: str) -> None:
    from nnunet_dml.evaluation.calibrated.apply import apply_cross_fitted, apply_to_folder

    options: dict[str, Any] = {"processes": args.processes}
    if args.cross_fitted:
        done = apply_cross_fitted(model, dataset_name, args.output, **options)
    else:
        done = apply_to_folder(model, args.input, args.output, **options)
    there = f", {done.skipped} were there already" if done.skipped else ""
    print(f"Written: {args.output}, {done.made} cases{there}")
    for group, method in done.methods.items():
        print(f"  {f'without {group}' if group else 'calibrated by'}: {method}")
    for note in done.notes:
        print(f"Note: {note}.")
