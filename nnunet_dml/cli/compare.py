"""`nnunet-dml compare`: several evaluations of the same cases, tested in pairs."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from nnunet_dml.cli._arguments import whole_number

HELP = "Paired differences of two or more evaluations, with confidence intervals and corrected tests."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "evaluations",
        nargs="+",
        type=Path,
        metavar="EVALUATION",
        help="folders that `nnunet-dml evaluate -o` wrote, two or more; the first is the baseline",
    )
    parser.add_argument(
        "--baseline", type=Path, metavar="EVALUATION", help="another one of them as the baseline"
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="what to call them (default: the folders' names)"
    )
    parser.add_argument(
        "--metrics",
        metavar="NAME,NAME",
        help="columns of cases.csv (default: those of dice,bdice,ece,brier,volume_bias that all have)",
    )
    parser.add_argument(
        "--per-class",
        action="store_true",
        help="a test per class instead of one of the mean over a case's classes",
    )
    add_bootstrap(parser, 10_000)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the rows: FILE.csv or FILE.json"
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print JSON instead of a table")
    shown.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def add_bootstrap(parser: argparse.ArgumentParser, resamples: int) -> None:
    """The bootstrap's options."""
    parser.add_argument(
        "--resamples",
        type=partial(_number, low=1, high=1_000_000),
        default=resamples,
        metavar="N",
        help=f"of the bootstrap over cases (default: {resamples})",
    )
    parser.add_argument(
        "--seed",
        type=partial(_number, low=0, high=999_999_999),
        default=0,
        metavar="N",
        help="of the bootstrap (default: 0)",
    )


def run(args: argparse.Namespace) -> int:
    """Compare, write, print."""
    import json

    from nnunet_dml._checks import InputError, problem
    from nnunet_dml._files import atomic_file
    from nnunet_dml.cli._outputs import check_apart_from_evaluations, check_file
    from nnunet_dml.evaluation.compare import as_json, compare, write_csv
    from nnunet_dml.evaluation.folder import read_evaluations
    from nnunet_dml.report.tables import comparison_table
    from nnunet_dml.report.text import markdown, plain

    if len(args.evaluations) < 2:
        raise InputError(problem(args.evaluations[0], expected="two evaluations or more", found="one"))
    if args.output is not None:
        check_file("-o", args.output, ".csv", ".json")
        check_apart_from_evaluations("-o", args.output, args.evaluations)
    models = read_evaluations(args.evaluations, args.names)
    baseline = models[0]
    if args.baseline is not None:
        wanted = [it for it in models if it.folder.resolve() == args.baseline.resolve()]
        if not wanted:
            found = "another folder"
            raise InputError(
                problem(f"--baseline {args.baseline}", expected="one of the evaluations given", found=found)
            )
        baseline = wanted[0]
    result = compare(
        [(baseline, it) for it in models if it is not baseline],
        measures=[it.strip() for it in args.metrics.split(",")] if args.metrics else None,
        per_class=args.per_class,
        resamples=args.resamples,
        seed=args.seed,
    )
    if args.output is not None:
        with atomic_file(args.output) as temporary:
            if args.output.suffix == ".csv":
                write_csv(result, temporary)
            else:
                text = json.dumps(as_json(result), indent=2, ensure_ascii=False, allow_nan=False)
                temporary.write_text(text + "\n", encoding="utf-8")
    table = comparison_table(result)
    if args.json:
        print(json.dumps(as_json(result), indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    print(f"{table.caption}\n")
    print(markdown(table) if args.markdown else plain(table))
    print(f"\n{result.explanation}")
    for note in result.notes:
        print(f"Note: {note}.")
    if args.output is not None:
        print(f"Written: {args.output}")
    return 0


def _number(text: str, *, low: int, high: int) -> int:
    number = whole_number(text)
    if number is None or not low <= number <= high:
        raise argparse.ArgumentTypeError(f"expected a number from {low} to {high}, found {text[:80]!r}")
    return number
