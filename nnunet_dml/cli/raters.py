"""`nnunet-dml raters`: how much the raters of a dataset agree."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_dml.cli._arguments import add_processes, whole_number

HELP = "How much the raters of a dataset agree: Dice, kappa, volumes, disputed voxels, and pictures of them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "-d",
        "--dataset",
        metavar="ID",
        help="dataset in nnUNet_raw: its id or name (501, 501_Name or Dataset501_Name)",
    )
    source.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="any folder of masks, CASE/RATER.*, without a dataset: every value but 0 is a class",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for cases.csv, raters.csv, pairs.csv, summary.json and pictures/; without it the table is "
        "printed and nothing is written",
    )
    parser.add_argument(
        "--pictures",
        type=_pictures,
        metavar="N|all|none",
        help="pictures of how many cases, the most disputed first (default: 10 where there is an -o)",
    )
    add_processes(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Measure, write, draw, print."""
    import json
    from functools import partial

    from nnunet_dml._checks import InputError, problem
    from nnunet_dml._folders import environment_folder, find_dataset
    from nnunet_dml.cli._outputs import check_apart
    from nnunet_dml.evaluation import rater_masks, rater_summary
    from nnunet_dml.evaluation.raters import measure, most_disputed, tables
    from nnunet_dml.report.disputed import draw_cases

    folder = args.folder or find_dataset(args.dataset, environment_folder("nnUNet_raw"))
    if args.output is not None:
        check_apart("-o", args.output, folder)
        rater_summary.check_output(args.output)
    elif args.pictures:
        raise InputError(
            problem("--pictures", expected="a folder for them", found="no -o", todo="Give -o DIR.")
        )
    if args.dataset is not None:
        raters = rater_masks.of_dataset(folder)
    else:
        raters = rater_masks.of_folder(folder, processes=args.processes)
    records = measure(raters, processes=args.processes)
    found = tables(records, list(raters.classes.members))
    result = rater_summary.summarise(raters, records, found)
    number = 10 if args.pictures is None else args.pictures
    named = {case.name: case for case in raters.compared}
    wanted = [named[name] for name in most_disputed(records, number)]
    if args.output is not None:
        draw = partial(draw_cases, wanted, raters.classes, processes=args.processes) if number else None
        rater_summary.write(args.output, found, result, draw=draw)
    if args.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return 0
    print(f"{raters.folder.name}: {len(records)} of {len(raters.cases)} cases have two raters or more\n")
    print(rater_summary.table(result))
    if args.output is not None:
        pictures = f", {len(wanted)} pictures in {args.output / rater_summary.PICTURES}" if number else ""
        files = ", ".join(str(args.output / name) for name in rater_summary.FILES)
        print(f"\nWritten: {files}{pictures}")
    return 0


def _pictures(text: str) -> int:
    """How many pictures the argument asks for."""
    if text in ("all", "none"):
        return sys.maxsize if text == "all" else 0
    number = whole_number(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"expected a number, all or none, found {text[:80]!r}")
    return number
