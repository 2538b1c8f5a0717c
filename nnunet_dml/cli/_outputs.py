"""Finding out before the work that a file cannot be written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nnunet_dml._checks import InputError, problem


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
    _check_writable(where, path.parent)


def check_folder(option: str, path: Path) -> None:
    """Check that files can be written into a folder, which is made where it is not there.

    Raises:
        InputError: It is a file, or neither it nor its parent can be written to.
    """
    where = f"{option} {path}"
    if path.exists() and not path.is_dir():
        raise InputError(problem(where, expected="a folder", found="a file"))
    if not path.is_dir() and not path.parent.is_dir():
        raise InputError(problem(where, expected=f"a folder {path.parent}", found="none"))
    _check_writable(where, path if path.is_dir() else path.parent)


def _check_writable(where: str, folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        found = error.strerror or str(error)
        raise InputError(problem(where, expected="a folder that can be written", found=found)) from None
