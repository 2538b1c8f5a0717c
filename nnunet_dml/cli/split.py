"""`nnunet-dml split`: folds in which a patient's cases stay together."""

from __future__ import annotations

import argparse

HELP = "Write nnU-Net's splits_final.json with all cases of a patient in one fold."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "-d", dest="dataset", required=True, metavar="DATASET", help="id or name of the data set"
    )
    parser.add_argument(
        "--groups",
        required=True,
        metavar="PATTERN",
        help="a regular expression that matches a case's whole name, parentheses around what names the patient: "
        "'(patient[0-9]+)_.*'",
    )
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="how many (default: 5)")
    parser.add_argument("--overwrite", action="store_true", help="replace other folds")


def run(args: argparse.Namespace) -> None:
    """Write, and print how large the folds are."""
    from nnunet_dml.nnunet.splits import write_splits

    path, splits = write_splits(args.dataset, args.groups, folds=args.folds, overwrite=args.overwrite)
    for number, fold in enumerate(splits):
        print(f"fold {number}: {len(fold['train'])} training cases, {len(fold['val'])} validation cases")
    print(f"Written: {path}")
