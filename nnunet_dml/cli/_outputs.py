"""Finding out before the work that a file cannot be written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import check_can_write


def check_file(option: str, path: Path, *endings: str) -> None:
    """Check that a file can be made.

    Args:
        option: What named it, for the message.
        path: The file; it may exist.
        endings: What it may end in; anything where none are given.

    Raises:
        InputError: It has another ending, is a folder, or its folder is not there or cannot be written to.
    """
    where = f"{option} {path}"
    if endings and path.suffix not in endings:
        found = path.suffix or "no ending"
        raise InputError(problem(where, expected=f"a file that ends in {' or '.join(endings)}", found=found))
    if path.is_dir():
        raise InputError(problem(where, expected="a file", found="a folder"))
    if not path.parent.is_dir():
        todo = "Make it or give another path."
        raise InputError(problem(where, expected=f"a folder {path.parent}", found="none", todo=todo))
    check_can_write(where, path.parent)


def check_folder(option: str, path: Path) -> None:
    """Check that files can be written into a folder, which is made where it is not there.

    Raises:
        InputError: See `check_can_write`.
    """
    check_can_write(f"{option} {path}", path)


def check_apart(option: str, path: Path, folder: Path, *names: str) -> None:
    """Check that an output does not take the place of what is read.

    Args:
        option: What named it, for the message.
        path: The file or folder to write.
        folder: What the command reads.
        names: What in `folder` is not to be written over; all of it where none are given.

    Raises:
        InputError: It is the folder, or lies in it under one of these names.
    """
    whole = path.resolve()
    inside = [folder / name for name in names or ("",)]
    if _same(whole, folder) or any(_same(it, taken) for it in (whole, *whole.parents) for taken in inside):
        expected, found = f"another place than what is read in {folder}", "one there"
        raise InputError(
            problem(f"{option} {path}", expected=expected, found=found, todo="Give another path.")
        )


def check_apart_from_evaluations(option: str, path: Path, folders: Iterable[Path]) -> None:
    """Check that a file takes the place of nothing that `nnunet-dml evaluate` wrote; see `check_apart`."""
    from nnunet_dml.evaluation.records import CASES, SUMMARY
    from nnunet_dml.evaluation.run import UNFINISHED
    from nnunet_dml.evaluation.tables import CASES_CSV

    for folder in folders:
        check_apart(option, path, folder, CASES, CASES_CSV, SUMMARY, UNFINISHED)


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one place; what is there may have several spellings, of either case."""
    return one == other.resolve() or (one.exists() and other.exists() and one.samefile(other))
