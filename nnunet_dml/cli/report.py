"""`nnunet-dml report`: evaluations as one HTML file that needs nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_dml.cli.compare import add_bootstrap

HELP = "One self-contained HTML file of one or several evaluations: tables, figures, pictures, comparison."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "evaluations",
        nargs="+",
        type=Path,
        metavar="EVALUATION",
        help="folders that `nnunet-dml evaluate -o` wrote; several are compared with the first",
    )
    parser.add_argument(
        "--calibrated",
        nargs="+",
        type=Path,
        default=[],
        metavar="EVALUATION",
        help="the same models after calibration, in the same order: shown beside them",
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="what to call them (default: the folders' names)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the report, FILE.html"
    )
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="write the figures there, too, as SVG and PNG"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="write the tables for LaTeX (booktabs)")
    add_bootstrap(parser, 2000)


def run(args: argparse.Namespace) -> int:
    """Read, build, write."""
    from nnunet_dml._checks import InputError, problem
    from nnunet_dml._files import atomic_file
    from nnunet_dml.cli._outputs import check_file, check_folder
    from nnunet_dml.report.build import build, read_models
    from nnunet_dml.report.html import render
    from nnunet_dml.report.pictures import write_pictures
    from nnunet_dml.report.text import latex, markdown
    from nnunet_dml.report.theme import drawing, write_files

    check_file("-o", args.output, ".html", ".htm")
    taken = {args.output.resolve(): "-o"}
    for option, path in (("--markdown", args.markdown), ("--latex", args.latex)):
        if path is not None:
            check_file(option, path)
            if (first := taken.setdefault(path.resolve(), option)) != option:
                expected = f"another file than {first}"
                raise InputError(problem(f"{option} {path}", expected=expected, found="the same"))
    if args.figures is not None:
        check_folder("--figures", args.figures)
    models, calibrated = read_models(args.evaluations, args.calibrated, args.names)
    written = [args.output]
    with drawing():
        report = build(models, calibrated, resamples=args.resamples, seed=args.seed)
        text = render(report)
        if args.figures is not None:
            args.figures.mkdir(exist_ok=True)
            for chart in report.charts:
                write_files(chart.figure, args.figures, chart.name)
            write_pictures(report.pictures, args.figures)
            written.append(args.figures)
    tables = [report.summary, *report.class_tables, *filter(None, [report.comparison_table])]
    files = {args.output: text}
    if args.markdown is not None:
        files[args.markdown] = "\n\n".join(f"{table.caption}\n\n{markdown(table)}" for table in tables) + "\n"
    if args.latex is not None:
        files[args.latex] = "\n\n".join(map(latex, tables)) + "\n"
    for path, content in files.items():
        with atomic_file(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    print(f"Written: {', '.join(map(str, [*files, *written[1:]]))}")
    return 0
