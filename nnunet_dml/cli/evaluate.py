"""`nnunet-dml evaluate`: probabilities against the raters of a raw dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_dml.cli._arguments import add_processes

HELP = "Dice, BDice, calibration and volume bias of predicted probabilities against several raters."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "-d",
        "--dataset",
        required=True,
        metavar="ID",
        help="dataset in nnUNet_raw: its id or name (501, 501_Name or Dataset501_Name)",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model",
        help="a trained model, TRAINER__PLANS__CONFIGURATION in nnUNet_results or a path: "
        "the validation cases of all its folds are evaluated together",
    )
    source.add_argument(
        "--predictions", type=Path, metavar="FOLDER", help="any folder of nnU-Net's .npz probabilities"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder for cases.csv and summary.json",
    )
    add_processes(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Evaluate, write, print."""
    import json

    from nnunet_dml._checks import InputError
    from nnunet_dml._folders import environment_folder, find_dataset
    from nnunet_dml.evaluation import predictions, summary
    from nnunet_dml.evaluation.dataset import read_dataset
    from nnunet_dml.evaluation.run import evaluate
    from nnunet_dml.metrics.calibration import BINS
    from nnunet_dml.metrics.overlap import THRESHOLDS

    dataset = read_dataset(find_dataset(args.dataset, environment_folder("nnUNet_raw")))
    summary.check_writable(args.output)
    if args.model is not None:
        found = predictions.of_model(predictions.find_model(dataset.name, args.model), dataset.name)
    else:
        found = predictions.of_folder(args.predictions)
    records = evaluate(found.cases, dataset, bins=BINS, processes=args.processes)
    if not records:
        raise InputError(f"{found.source}: no case to evaluate")
    result = {
        "dataset": dataset.name,
        "source": str(found.source),
        **summary.summarise(records, dataset.classes, bins=BINS),
        "notes": list(found.notes),
        "options": {"bins": BINS, "thresholds": list(THRESHOLDS)},
    }
    summary.write(args.output, records, dataset.classes, result)
    if args.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        print(f"{dataset.name}, {found.source.name}\n")
        print(summary.table(result, found.notes))
        print(f"\nWritten: {args.output / 'cases.csv'}, {args.output / 'summary.json'}")
    return 0
