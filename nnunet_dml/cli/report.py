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
    from contextlib import ExitStack

    from nnunet_dml._checks import InputError, problem
    from nnunet_dml._files import atomic_file, atomic_files
    from nnunet_dml.cli._outputs import check_apart_from_evaluations, check_file, check_folder
    from nnunet_dml.report.build import build, read_models
    from nnunet_dml.report.html import render
    from nnunet_dml.report.pictures import write_pictures
    from nnunet_dml.report.text import latex, markdown
    from nnunet_dml.report.theme import drawing, write_files

    taken: dict[Path, str] = {}
    for option in ("-o", "--figures", "--markdown", "--latex"):
        path = args.output if option == "-o" else getattr(args, option[2:])
        if path is None:
            continue
        if option == "--figures":
            check_folder(option, path)
        else:
            check_file(option, path, *((".html", ".htm") if option == "-o" else ()))
        check_apart_from_evaluations(option, path, [*args.evaluations, *args.calibrated])
        if (first := taken.setdefault(path.resolve(), option)) != option:
            expected = f"another file than {first}"
            raise InputError(problem(f"{option} {path}", expected=expected, found="the same"))
    models, calibrated = read_models(args.evaluations, args.calibrated, args.names)
    with drawing(), ExitStack() as made:
        report = build(models, calibrated, resamples=args.resamples, seed=args.seed)
        tables = [report.summary, *report.class_tables, *filter(None, [report.comparison_table])]
        files = {args.output: render(report)}
        if args.markdown is not None:
            texts = [f"{table.caption}\n\n{markdown(table)}" for table in tables]
            files[args.markdown] = "\n\n".join(texts) + "\n"
        if args.latex is not None:
            files[args.latex] = "\n\n".join(map(latex, tables)) + "\n"
        for path, content in files.items():
            made.enter_context(atomic_file(path)).write_text(content, encoding="utf-8")
        if args.figures is not None:
            folder = made.enter_context(atomic_files(args.figures))
            for chart in report.charts:
                write_files(chart.figure, folder, chart.name)
            write_pictures(report.pictures, folder)
    print(f"Written: {', '.join(map(str, [*files, *filter(None, [args.figures])]))}")
    return 0
