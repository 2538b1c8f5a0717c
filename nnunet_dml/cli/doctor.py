"""`nnunet-dml doctor`: what is installed, what a data set holds, and where its fractions get lost."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nnunet_dml.cli._arguments import add_processes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnunet_dml.nnunet.findings import Finding, Report, Step

HELP = "Check the installation, and with -d a data set: where do its fractions get lost on their way to the loss?"
_MARKS = {"ok": "✓", "note": "!", "wrong": "✗"}
_PLAIN_MARKS = {"ok": "ok", "note": "!", "wrong": "x"}
_PLAIN = str.maketrans({"…": "...", "×": "x", "–": "-"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Named as nnU-Net's own."""
    parser.add_argument("-d", dest="dataset", metavar="DATASET", help="id or name of a data set")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", metavar="PLANS", help="plans identifier")
    parser.add_argument(
        "-c", dest="configuration", metavar="CONFIGURATION", help="default: the first that is preprocessed"
    )
    parser.add_argument(
        "-tr", dest="trainer", default="nnUNetTrainerDML", metavar="TRAINER",
        help="trainer whose loader, transforms and loss are watched (default: nnUNetTrainerDML)",
    )  # fmt: skip
    parser.add_argument(
        "--cases",
        type=int,
        default=5,
        metavar="N",
        help="cases whose maps are made again to compare (default: 5)",
    )
    parser.add_argument("--patches", type=int, default=16, metavar="N", help="patches to draw (default: 16)")
    parser.add_argument("--quick", action="store_true", help="leave the voxels of masks and maps unread")
    add_processes(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Examine and print; 2 if anything is wrong."""
    import io
    import json
    import sys
    from contextlib import redirect_stdout
    from dataclasses import replace

    from nnunet_dml._checks import InputError, problem
    from nnunet_dml.nnunet import installation
    from nnunet_dml.nnunet.findings import Report

    for option, value in (("--cases", args.cases), ("--patches", args.patches)):
        if value < 1:
            raise InputError(problem(option, expected="at least 1", found=str(value)))
    found, importable = installation.examine()
    report = Report(found)
    if args.dataset is not None and importable:
        from nnunet_dml.nnunet.doctor import examine

        with redirect_stdout(io.StringIO()):  # nnU-Net talks while it reads plans
            its = examine(
                args.dataset,
                plans_name=args.plans,
                configuration=args.configuration,
                trainer_name=args.trainer,
                cases=args.cases,
                patches=args.patches,
                quick=args.quick,
                processes=args.processes,
            )
        report = replace(its, installation=found)
    if args.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        encoding = sys.stdout.encoding or "ascii"
        for line in lines(report, plain=not _encodes(encoding)):
            print(line.encode(encoding, "replace").decode(encoding))
    return 2 if report.problems else 0


def _encodes(encoding: str) -> bool:
    try:
        "✓✗".encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def lines(report: Report, *, plain: bool = False) -> list[str]:
    """The report as text, a line per check and step; `plain` avoids what ASCII lacks."""
    marks = _PLAIN_MARKS if plain else _MARKS
    rows = ["Installation", *_findings(report.installation, marks)]
    if report.dataset:
        rows += ["", "Data set", *_findings(report.dataset, marks)]
    if report.steps:
        rows += [
            "",
            f"Fractional voxels on their way to the loss: {report.title}",
            *_steps(report.steps, marks),
        ]
    rows += ["", _summary(report, marks)]
    return [row.translate(_PLAIN) for row in rows] if plain else rows


def _summary(report: Report, marks: dict[str, str]) -> str:
    problems, notes = report.problems, report.notes
    text = (
        f"{problems} problem{'s' * (problems > 1)}, marked {marks['wrong']}"
        if problems
        else "Nothing is wrong"
    )
    return f"{text}; {notes} note{'s' * (notes > 1)}, marked {marks['note']}." if notes else f"{text}."


def _findings(findings: Sequence[Finding], marks: dict[str, str]) -> list[str]:
    width = max((len(it.about) for it in findings), default=0)
    mark = max(map(len, marks.values()))
    return [f"  {marks[it.level]:{mark}} {it.about:{width}}  {it.text}" for it in findings]


def _steps(steps: Sequence[Step], marks: dict[str, str]) -> list[str]:
    width, mark = max(len(it.name) for it in steps), max(map(len, marks.values()))
    rows = [f"  {'':{mark}} {'step':{width}}  {'fractional':>10}  {'greatest error':>14}"]
    for it in steps:
        share = "" if it.share is None else f"{it.share:.2%}"
        error = "" if it.error is None else f"{it.error:.4f}"
        rows.append(
            f"  {marks[it.level]:{mark}} {it.name:{width}}  {share:>10}  {error:>14}  {it.remark}".rstrip()
        )
    return rows
