"""Reading JSON, and writing files so that a killed run leaves nothing that looks whole."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError, problem

_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
_LEFTOVER = re.compile(r"\.(?P<kind>tmp|old)-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-\w{8}-(?P<name>.+)")


def read_json(path: Path, *, todo: str = "") -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: The file.
        todo: What to do where it is missing or damaged, for the message.

    Raises:
        InputError: The file is missing, cannot be read or holds no JSON object.
    """
    content = _read_any_json(path, todo)
    if not isinstance(content, dict):
        found = type(content).__name__
        raise InputError(problem(path, expected="a JSON object", found=found, todo=todo))
    return content


def read_splits(path: Path) -> list[dict[str, list[str]]]:
    """The folds in a `splits_final.json` of nnU-Net's, each with its cases under `train` and `val`.

    One that only validates may have no training cases; see `not_trainable`.

    Raises:
        InputError: The file is missing, cannot be read or holds something else.
    """
    todo = "Restore the file."
    content = _read_any_json(path, todo)
    try:
        splits = [{side: fold[side] for side in ("train", "val")} for fold in content]
        if all(
            isinstance(it, list) and set(map(type, it)) <= {str} for fold in splits for it in fold.values()
        ):
            return splits
    except (KeyError, TypeError):
        pass
    raise InputError(problem(path, expected="nnU-Net's splits", found="something else", todo=todo))


def not_trainable(path: Path, *folds: int | str) -> str:
    """The line on folds of a `splits_final.json` that are to be trained and have no training cases."""
    expected = f"training cases in fold {', '.join(map(str, folds))}"
    return problem(path, expected=expected, found="none", todo="Choose a fold that has some.")


def _read_any_json(path: Path, todo: str) -> Any:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        found = "a folder" if path.is_dir() else "something else under that name"
        raise InputError(problem(path, expected="a file", found=found, todo=todo))
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(problem(path, expected="a file", found="none", todo=todo)) from None
    except OSError as error:
        found = str(error.strerror)
        raise InputError(problem(path, expected="a readable file", found=found, todo=todo)) from None
    except ValueError as error:
        raise InputError(problem(path, expected="JSON", found=str(error), todo=todo)) from None
    except RecursionError:
        raise InputError(problem(path, expected="JSON", found="endless brackets", todo=todo)) from None


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, with the same endings; rename it to `path` if the block succeeds.

    Args:
        path: The file to make. Its folder must exist. An older file is replaced at once, never half.

    Raises:
        InputError: There is something else of that name: a folder, a device, a pipe.
    """
    path = Path(path)
    _refuse_all_but_files(path)
    try:
        handle, name = tempfile.mkstemp(prefix=_prefix(), suffix="-" + path.name, dir=path.parent)
    except OSError as error:
        error.filename = str(path)  # the one that the user knows
        raise
    os.close(handle)
    temporary = Path(name)
    temporary.unlink()  # some writers refuse to write over a file
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):  # a full disk has no name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` if the block succeeds, else remove it.

    A replaced folder is put aside for the moment between two renames; if the process is killed in it,
    `clear_leftovers` brings that folder back.

    Args:
        path: The folder to make.
        replace: Whether an existing folder is replaced. Otherwise `FileExistsError` is raised, before the block
            or, where another process has made the folder meanwhile, after it.

    Raises:
        InputError: There is a file of that name.
    """
    path = Path(path)
    _refuse_existing(path, replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=_prefix(), suffix="-" + path.name, dir=path.parent))
    temporary.chmod(0o755)  # mkdtemp makes private folders
    try:
        yield temporary
        _refuse_existing(path, replace)
        old = temporary.with_name(temporary.name.replace(".tmp-", ".old-", 1))
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            if old.exists() and not path.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        _name(error, temporary, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_files(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder; if the block succeeds its files move into `folder`, which may hold others.

    What processes left there that were killed at this goes; see `clear_leftovers`.

    Args:
        folder: Where to; made, with its parents, where it is not there.

    Raises:
        InputError: There is something else than a file under the name of one of them; then none has moved.
    """
    folder = Path(folder)
    clear_leftovers(folder.parent, folder.name)
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            yield temporary
        return
    clear_leftovers(folder, "files")
    with tempfile.TemporaryDirectory(prefix=_prefix(), suffix="-files", dir=folder) as name:
        try:
            yield Path(name)
            made = sorted(Path(name).iterdir())
            _refuse_all_but_files(*(folder / it.name for it in made))
            for path in made:
                path.replace(folder / path.name)
        except OSError as error:
            _name(error, Path(name), folder)
            raise


def clear_leftovers(folder: Path, name: str | None = None) -> None:
    """Clear up after processes of this machine that were killed in `atomic_file`, `atomic_folder` or `atomic_files`.

    What was half made is removed; a folder that was put aside comes back unless there is a new one in its place.
    What belongs to running processes or to other machines stays.

    Args:
        folder: Where to look; it need not exist.
        name: The file or folder that was to be made, `files` for those of `atomic_files`; None takes all in `folder`.
    """
    for leftover in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _LEFTOVER.fullmatch(leftover.name)
        if not match or match["machine"] != _MACHINE or _is_running(int(match["pid"])):
            continue
        target = folder / match["name"]
        if name not in (None, target.name):
            continue
        with suppress(FileNotFoundError):  # another process clears up, too
            if match["kind"] == "old" and not target.exists():
                leftover.rename(target)
            elif leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def check_can_write(where: str, folder: Path) -> None:
    """Check before the work that files can be written into a folder, which is made where it is not there.

    Args:
        where: The option and the folder, for the message.
        folder: Nothing is left in it.

    Raises:
        InputError: It or the nearest parent that is there is a file or cannot be written to, or there is none.
    """
    existing = next((it for it in (folder, *folder.absolute().parents) if it.exists()), None)
    if existing is None:
        expected, todo = "a folder, or a parent that is there to make it in", "Give another path."
        raise InputError(problem(where, expected=expected, found="none", todo=todo))
    if not existing.is_dir():
        found = "a file" if existing == folder else f"a file {existing}"
        raise InputError(problem(where, expected="a folder", found=found, todo="Give another path."))
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        found = error.strerror or str(error)
        raise InputError(problem(where, expected="a folder that can be written", found=found)) from None


def _prefix() -> str:
    return f".tmp-{_MACHINE}-{os.getpid()}-"


def _name(error: OSError, temporary: Path, path: Path) -> None:
    """Name a file in a temporary folder as the user will know it."""
    if isinstance(error.filename, str) and Path(error.filename).is_relative_to(temporary):
        error.filename = str(path / Path(error.filename).relative_to(temporary))


def _refuse_all_but_files(*paths: Path) -> None:
    expected, found = "a file, or nothing yet", "something else under that name"
    if taken := [it for it in paths if it.exists() and not it.is_file()]:
        raise InputError(*(problem(it, expected=expected, found=found) for it in taken))


def _refuse_existing(path: Path, replace: bool) -> None:
    if path.exists() and not replace:
        raise FileExistsError(f"{path} exists already")
    if path.exists() and not path.is_dir():
        todo = "Remove it or move it away."
        raise InputError(problem(path, expected="a folder or none", found="a file", todo=todo))


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # where signal 0 is no question; leftovers stay
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True
