"""Whether the trainers and options of a grid exist, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_dml._checks import InputError
from nnunet_dml.benchmark.grid import Cell
from nnunet_dml.nnunet.doctor import find_trainer
from nnunet_dml.nnunet.options import parse_assignments


def check(cells: Sequence[Cell], *, where: str) -> None:
    """Refuse unknown trainers, options and label sources.

    Args:
        cells: All of a grid.
        where: Its file, for the message.

    Raises:
        InputError: One line per problem.
    """
    problems = []
    for name in dict.fromkeys(it.trainer for it in cells):
        try:
            find_trainer(name)
        except InputError as error:
            problems += [f"{where}: {line}" for line in error.problems]
    for words in dict.fromkeys(tuple(it.assignments) for it in cells):
        try:
            parse_assignments(words)
        except InputError as error:
            problems += [f"{where}: {line}" for line in error.problems]
    if problems:
        raise InputError(*dict.fromkeys(problems))
