"""Whether the trainers, options, networks and figures of a grid exist, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_dml._checks import InputError, problem
from nnunet_dml.benchmark.grid import ALL, Grid
from nnunet_dml.benchmark.tables import POOLED
from nnunet_dml.benchmark.training import Cell, assignments_of, paper_keys
from nnunet_dml.evaluation.measures import MEASURES
from nnunet_dml.nnunet.doctor import find_trainer
from nnunet_dml.nnunet.options import KEY, parse_assignments
from nnunet_dml.nnunet.plan_changes import Changes
from nnunet_dml.nnunet.segmentation_models import arguments_of
from nnunet_dml.nnunet.trainers.configured import nnUNetTrainerConfigured


def check(grid: Grid, cells: Sequence[Cell], *, where: str) -> None:
    """Refuse unknown trainers, options, label sources, networks and figures.

    Args:
        grid: What was read.
        cells: All of it.
        where: Its file, for the message.

    Raises:
        InputError: One line per problem.
    """
    problems = _figures(grid, cells)
    for network in grid.networks.values():
        try:
            Changes(**network.model_dump()).check(None)
            if network.network is not None:
                arguments_of(network.network)
        except InputError as error:
            problems += error.problems
    before, parts = len(problems), {"options": grid.options}
    parts |= {f"labels.{name}": it for name, it in grid.labels.items()}
    parts |= {f"methods.{name}.options": it.options for name, it in grid.methods.items()}
    for part, options in parts.items():
        try:
            parse_assignments(assignments_of(options), where=part)
        except InputError as error:
            problems += error.problems
    for cell in {(it.method, it.labels): it for it in cells}.values() if len(problems) == before else ():
        try:
            _trainer(cell)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*(f"{where}: {it}" for it in dict.fromkeys(problems)))


def _trainer(cell: Cell) -> None:
    """Refuse a trainer that does not exist, that does not read its options, or that wants a teacher and has none."""
    method, name = f"methods.{cell.method}", cell.trainer
    trainer = find_trainer(name, where=f"{method}.trainer")
    if not issubclass(trainer, nnUNetTrainerConfigured):
        expected = "a trainer that reads options and seeds"
        todo = "nnUNetTrainerConfigured is nnU-Net's own that does."
        raise InputError(problem(f"{method}.trainer", expected=expected, found=name, todo=todo))
    flags, learns = {}, "teacher" in trainer.option_groups
    if cell.teacher is not None:
        flags = {f"{method}.teacher": f"teacher.model={cell.teacher.model}"}
        if not learns:
            expected = "a trainer that learns from a teacher, such as nnUNetTrainerDML_KD"
            raise InputError(problem(f"{method}.teacher", expected=expected, found=name))
    elif learns and not {"teacher.model", "teacher.maps"} & cell.options.keys():
        expected = f"a method, or teacher.model or teacher.maps among its options, for {name}"
        raise InputError(problem(f"{method}.teacher", expected=expected, found="none"))
    where = f"{method} with labels.{cell.labels}" if cell.labels else method
    options = parse_assignments(cell.assignments, flags, where=where)
    trainer._read_options({"plans_name": f"of {where}", KEY: options})


def _figures(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """What is wrong with the table."""
    valid, problems = [*MEASURES, *POOLED], []
    if unknown := [it for it in grid.table.metrics if it not in valid]:
        expected = f"some of {', '.join(valid)}"
        problems.append(problem("table.metrics", expected=expected, found=", ".join(unknown)))
    for dataset, rows in grid.table.paper.items():
        own = [it for it in cells if dataset in (it.dataset_name, ALL)]
        known = [key for it in own for key in paper_keys(it)]
        for row, values in rows.items():
            if row not in known:
                expected = (
                    f"a row, a label source or a method of the grid ({', '.join(dict.fromkeys(known))})"
                )
                problems.append(problem(f"table.paper.{dataset}", expected=expected, found=row))
            if wrong := [it for it in values if it not in valid]:
                where = f"table.paper.{dataset}.{row}"
                problems.append(problem(where, expected="figures as in metrics", found=", ".join(wrong)))
    return problems
