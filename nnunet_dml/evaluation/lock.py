"""One process at a time writes into the folder of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from nnunet_dml._checks import InputError, problem

LOCK = ".lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep other processes, also of other machines, from writing into a folder meanwhile.

    The system frees the lock of a killed process. File systems without locks and Windows keep nobody away.

    Args:
        folder: Made where it is not there. At the end the lock's file is removed, and a folder that was made for it
            and is still empty.

    Raises:
        InputError: Another process is writing there.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    file = _hold(folder)
    try:
        yield
    finally:
        if os.name == "nt":
            file.close()  # an open file cannot be removed there
        (folder / LOCK).unlink(missing_ok=True)
        file.close()
        with suppress(OSError):  # something came into it
            for path in made:
                path.rmdir()


def _hold(folder: Path) -> IO[str]:
    """The open file that holds the lock."""
    path = folder / LOCK
    while True:
        file = path.open("a", encoding="ascii")
        try:
            _lock(file)
        except BlockingIOError:
            file.close()
            expected, found = "no other process that writes there", "one"
            todo = "Wait until it has ended, or give another -o."
            raise InputError(problem(f"-o {folder}", expected=expected, found=found, todo=todo)) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its last holder has removed it since it was opened


def _lock(file: IO[str]) -> None:
    """Lock without waiting.

    Raises:
        BlockingIOError: Another process has it locked.
    """
    if os.name == "nt":
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # the file system has no locks
        return
