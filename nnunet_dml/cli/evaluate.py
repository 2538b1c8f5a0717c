"""`nnunet-dml evaluate`: probabilities against the raters of a raw dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_dml.cli._arguments import add_processes, fold_number

HELP = (
    "Overlap, calibration and volumes of predicted probabilities against several raters, soft or hard labels."
)


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
        "--predictions",
        type=Path,
        metavar="FOLDER",
        help="any folder of probabilities: nnU-Net's .npz, or NIfTI maps of fractions, a channel per foreground class",
    )
    parser.add_argument(
        "-f",
        dest="folds",
        nargs="+",
        metavar="FOLD",
        help="only these folds of the model (default: all); an -o with records of others is refused",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder for cases.csv, summary.json and the cases' records; what is up to date there is not measured again",
    )
    parser.add_argument(
        "--reference",
        choices=("auto", "raters", "softlabels", "labels"),
        default="auto",
        help="the soft reference: the mean of the case's raters, its map in softlabelsTr, or labelsTr; "
        "auto (default): the first of these that there is",
    )
    parser.add_argument(
        "--bins", type=int, default=10, metavar="N", help="of calibration errors (default: 10)"
    )
    parser.add_argument(
        "--thresholds", type=float, nargs="+", metavar="T", help="of BDice (default: 0.1 0.2 … 0.9)"
    )
    parser.add_argument(
        "--boundary",
        type=int,
        default=3,
        metavar="K",
        help="the boundary are voxels with another label within K × … × K voxels (default: 3)",
    )
    parser.add_argument(
        "--surfaces", action="store_true", help="surface Dice and HD95, too; slow on large volumes"
    )
    parser.add_argument(
        "--tolerance", type=float, default=1.0, metavar="MM", help="of surface Dice (default: 1 mm)"
    )
    parser.add_argument("--overwrite", action="store_true", help="measure all cases, also what is up to date")
    add_processes(parser)
    parser.add_argument(
        "--by", choices=("case", "class", "fold"), help="rows of the table (default: folds and classes)"
    )
    printed = parser.add_mutually_exclusive_group()
    printed.add_argument("--json", action="store_true", help="print the summary as JSON instead of a table")
    printed.add_argument("--csv", action="store_true", help="print cases.csv instead of a table")


def run(args: argparse.Namespace) -> int:
    """Evaluate, write, print."""
    import json
    from dataclasses import asdict

    from nnunet_dml._checks import InputError, problem, some
    from nnunet_dml._folders import environment_folder, find_dataset
    from nnunet_dml.cli._outputs import check_apart
    from nnunet_dml.evaluation import predictions, summary, tables
    from nnunet_dml.evaluation.dataset import LABELS, read_dataset
    from nnunet_dml.evaluation.lock import only_writer
    from nnunet_dml.evaluation.options import Options
    from nnunet_dml.evaluation.run import evaluate
    from nnunet_dml.evaluation.training import training_of
    from nnunet_dml.metrics.overlap import THRESHOLDS

    if args.by and (args.json or args.csv):
        found_option = "--json" if args.json else "--csv"
        todo = "Leave one of them out: both have all rows."
        raise InputError(problem("--by", expected="a table to be printed", found=found_option, todo=todo))
    folds = [fold_number(it, expected="numbers of folds") for it in args.folds or ()]
    if folds and args.model is None:
        raise InputError(problem("-f", expected="--model", found="--predictions"))
    options = Options(
        bins=args.bins,
        thresholds=tuple(args.thresholds or THRESHOLDS),
        neighbourhood=args.boundary,
        reference=args.reference,
        surfaces=args.surfaces,
        tolerance=args.tolerance,
    )
    raw = find_dataset(args.dataset, environment_folder("nnUNet_raw"))
    check_apart("-o", args.output, raw)
    dataset = read_dataset(raw)
    summary.check_writable(args.output)
    if args.model is not None:
        folder = predictions.find_model(args.model, dataset.name, option="--model")
        found = predictions.of_model(folder, dataset.name, folds)
    else:
        found = predictions.of_folder(args.predictions)
    predictions.check_labels(found.source, dataset)
    predicted = {it.case for it in found.cases}
    parts = [set(dataset.labelled_cases(part)) for part in LABELS]
    notes = list(found.notes)
    if tests := predicted & parts[1] - parts[0]:
        notes.append(f"the reference of {len(tests)} cases is in {LABELS[1]}")
    gaps = [found.gaps] if found.gaps else []
    labelled = {case for part in parts if part & predicted for case in part}
    if found.chosen is not None:
        labelled &= found.chosen
    missing = None if found.unknown else sorted(labelled - predicted)
    if missing:
        lacking = f"{len(missing)} of {len(labelled)} labelled cases have no prediction: {some(missing)}"
        gaps = ["; ".join([*gaps, lacking])]
    notes += gaps
    shown = list(notes)
    if args.by == "fold" and args.model is None:
        shown.append("a folder of predictions has no folds")
    evaluated = sorted({it.fold for it in found.cases if it.fold}, key=int)
    with only_writer(args.output):
        records = evaluate(
            found.cases,
            dataset,
            options,
            args.output,
            folds=[str(it) for it in folds],
            processes=args.processes,
            overwrite=args.overwrite,
        )
        result = {
            "dataset": dataset.name,
            "source": str(found.source),
            **({"training": training_of(found.source, evaluated)} if evaluated else {}),
            **summary.summarise(records, dataset.foreground, options),
            "notes": notes,
            "not_predicted": missing,
            "options": {**asdict(options), "thresholds": list(options.thresholds)},
        }
        summary.write(args.output, records, dataset.foreground, result)
    if args.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    elif args.csv:
        print(tables.cases_csv(records, dataset.foreground), end="")
    else:
        print(f"{dataset.name}, {found.source.name}\n")
        print(tables.table(result, records, shown, by=args.by))
        print(f"\nWritten: {args.output / tables.CASES_CSV}, {args.output / 'summary.json'}")
    return 0
