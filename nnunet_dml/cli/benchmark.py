"""`nnunet-dml benchmark`: a grid of trainings and its tables."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_dml.cli._arguments import add_processes, whole_number

if TYPE_CHECKING:
    from nnunet_dml.benchmark.grid import Grid
    from nnunet_dml.benchmark.training import Cell

HELP = "Train a grid of data sets, labels, methods and networks, and make the papers' tables of it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `run` and `tables`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run_parser = actions.add_parser("run", help="train what is not trained yet")
    tables_parser = actions.add_parser("tables", help="evaluate what is trained, and write the tables")
    for it in (run_parser, tables_parser):
        it.add_argument(
            "grid",
            metavar="GRID",
            help="a YAML file, or a grid of the package: table1, table3, table4, table4-kd, table5, table8",
        )
        it.add_argument("--quick", action="store_true", help="the grid's small size, for two CPU cores")
        it.add_argument(
            "--datasets", nargs="+", default=[], metavar="NAME", help="only these of the grid's data sets"
        )
    run_parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="raw data: convert, plan and preprocess what is missing"
    )
    run_parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    run_parser.add_argument(
        "-j",
        dest="jobs",
        type=int,
        metavar="N",
        help="cells at once, per GPU (default: 1; with --slurm as many as it gives)",
    )
    run_parser.add_argument("--gpus", type=int, nargs="+", default=[], metavar="GPU", help="their numbers")
    run_parser.add_argument(
        "-device", "--device", choices=("cuda", "cpu", "mps"), help="as of nnUNetv2_train"
    )
    run_parser.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="each cell a job of SLURM, by submitit, with its parameters: timeout_min=600 slurm_partition=gpu "
        "gpus_per_node=1",
    )
    tables_parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the tables"
    )
    add_processes(tables_parser)


def run(args: argparse.Namespace) -> int:
    """Train or tabulate."""
    from nnunet_dml.benchmark import grid as grids
    from nnunet_dml.benchmark.checks import check
    from nnunet_dml.benchmark.training import cells as cells_of

    name, grid = grids.read_grid(args.grid, quick=args.quick, datasets=args.datasets)
    cells = cells_of(name, grid)
    check(grid, cells, where=args.grid)
    return _run(args, name, cells) if args.action == "run" else _tables(args, name, grid, cells)


def _run(args: argparse.Namespace, name: str, cells: list[Cell]) -> int:
    from nnunet_dml._checks import InputError, problem
    from nnunet_dml.benchmark import data, runner
    from nnunet_dml.benchmark.cells import Place, check_options, failure_of, state
    from nnunet_dml.cli.env import VARIABLE, plugin_path

    if args.dry_run:
        print("\n".join(data.commands(cells, args.data, args.device)))
        return 0
    if args.slurm and args.gpus:
        todo = "Ask SLURM for them: gpus_per_node=1."
        raise InputError(problem("--gpus", expected="none with --slurm", found="some", todo=todo))
    os.environ[VARIABLE] = plugin_path()  # of this process and of those that it starts
    place = Place.of(name, args.device)
    if args.slurm:
        parameters = dict(_parameter(it) for it in args.slurm)
        execute = runner.on_a_cluster(place, jobs=args.jobs, parameters=parameters)
    else:
        execute = runner.on_this_machine(place, jobs=1 if args.jobs is None else args.jobs, gpus=args.gpus)
    data.check_raw(cells, args.data)
    if args.data is not None:
        data.prepare(cells, place, args.data)
    data.check_data(cells)
    check_options(cells, place)
    place.made()
    counted = runner.run(cells, execute)
    print(", ".join(f"{n} {it}" for it, n in sorted(counted.items())) + f" of {len(cells)} trainings.")
    if counted["busy"]:
        print("Those that are busy are being trained by another runner.")
    for cell in cells:
        if state(cell, place) == "failed":
            print(failure_of(cell, place))
    chosen = ["--datasets", *args.datasets] if args.datasets else []
    words = shlex.join([args.grid, *(["--quick"] if args.quick else []), "-o", "DIR", *chosen])
    print(f"Tables: nnunet-dml benchmark tables {words}")
    return 1 if counted["failed"] else 0


def _tables(args: argparse.Namespace, name: str, grid: Grid, cells: list[Cell]) -> int:
    from nnunet_dml.benchmark import tables
    from nnunet_dml.benchmark.results import evaluations
    from nnunet_dml.cli._outputs import check_folder
    from nnunet_dml.report.text import plain

    check_folder("-o", args.output)
    found, notes = evaluations(name, cells, processes=args.processes)
    long = tables.long_table(grid, found, cells)
    made = tables.table(grid.title, long)
    if grid.table.source:
        notes = [f"Paper: {grid.table.source}.", *notes]
    notes = [tables.EXPLAINED, *notes]
    paths = tables.write(args.output, name, made, long, notes)
    print(plain(made))
    print("\n".join(["", *notes, f"Written: {', '.join(map(str, paths))}"]))
    return 0


def _parameter(text: str) -> tuple[str, object]:
    from nnunet_dml._checks import InputError, problem

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(problem("--slurm", expected="NAME=VALUE", found=text))
    number = whole_number(value)
    return name, value if number is None else number
