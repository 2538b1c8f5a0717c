"""Training one cell of a grid: once, whoever else works on the same grid, and so that what was killed goes on."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file, read_json
from nnunet_dml._folders import environment_folder
from nnunet_dml.benchmark.training import Cell, file_name

State = Literal["done", "failed", "busy", "open"]
_RUNNING: set[subprocess.Popen[bytes]] = set()
_INTERRUPTED = threading.Event()


@dataclass(frozen=True)
class Place:
    """Where a grid's locks, logs and failures are noted: the same for every runner, whatever folder he is in."""

    folder: Path
    device: str | None = None
    """nnU-Net's `-device`; None is its default."""

    @classmethod
    def of(cls, name: str, device: str | None = None) -> Place:
        """That of a grid, in nnUNet_results. What is refused leaves none behind: `made` makes it.

        Raises:
            InputError: nnUNet_results is not set.
        """
        return cls(environment_folder("nnUNet_results", must_exist=False) / f"benchmark_{name}", device)

    def made(self) -> Place:
        """Itself, with its folders."""
        for part in ("locks", "logs", "failed", "plans"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        return self

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[int | None]:
        """A lock between processes, which the system frees when its holders die. Its file stays.

        Yields:
            The file that holds it, for child processes that shall hold it, too; None where another process has it and
            `wait` is false.
        """
        with (self.folder / "locks" / f"{file_name(name)}.lock").open("a", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield None
            else:
                yield file.fileno()

    def log(self, name: str) -> Path:
        """What a command printed."""
        return self.folder / "logs" / f"{file_name(name)}.txt"

    def failure(self, name: str) -> Path:
        """The note of a cell that failed."""
        return self.folder / "failed" / f"{file_name(name)}.json"


def model_folder(cell: Cell) -> Path:
    """Of the model that a cell is a fold of."""
    return environment_folder("nnUNet_results", must_exist=False) / cell.model


def is_done(cell: Cell) -> bool:
    """Whether a cell is trained and validated."""
    return (model_folder(cell) / f"fold_{cell.fold}" / "validation" / "summary.json").is_file()


def state(cell: Cell, place: Place) -> State:
    """What is known of a cell, without waiting for anyone."""
    if is_done(cell):
        return "done"
    return "failed" if place.failure(cell.name).is_file() else "open"


def run_cell(cell: Cell, place: Place, environment: Mapping[str, str] | None = None) -> State:
    """Train a cell unless that is done or another runner is at it.

    Args:
        cell: What.
        place: Of its grid.
        environment: Variables for its commands beside this process's own, such as CUDA_VISIBLE_DEVICES.

    Returns:
        `done`, `failed` (noted in `place`, with the log's name), or `busy`.
    """
    try:
        return _run(cell, place, environment)
    except OSError as error:  # a full disk: the other cells may fare better
        note_failure(cell, place, f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
        return "failed"


def _run(cell: Cell, place: Place, environment: Mapping[str, str] | None) -> State:
    with place.lock(cell.name, wait=False) as held:
        if held is None:
            return "busy"
        place.failure(cell.name).unlink(missing_ok=True)
        if is_done(cell):
            return "done"
        if cell.teacher is not None:
            with place.lock(cell.teacher.name):  # another runner may still be training it
                pass
            if not is_done(cell.teacher):
                note_failure(cell, place, f"its teacher is not trained: {cell.teacher.name}")
                return "failed"
        log = place.log(cell.name)
        with place.lock(f"{cell.dataset.folder_name} {cell.plans}"):  # folds of a model share their plans
            commands = [] if _plans_are_written(cell, place) else [cell.configure]
            code = call(commands, log, environment)
            if commands and code == 0:
                with atomic_file(_plans_note(cell, place)) as file:
                    file.write_text(_identity(cell), encoding="utf-8")
        command = cell.train(place.device)
        code = code or call([command], log, environment, held=held)
        if code == 0 and is_done(cell):
            return "done"
        note_failure(cell, place, f"status {code}, {telling_line(log)}", [*commands, command])
        return "failed"


def telling_line(log: Path) -> str:
    """Of the last command in a log the last line that names an error, else the last one: what a message quotes."""
    lines: list[str] = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        lines = [] if line.startswith("$ ") else [*lines[-1000:], line.strip()] if line.strip() else lines
    errors = [it for it in lines if re.search(r"Error\b|\berror:", it)]
    return (errors or lines or [""])[-1][:300]


def note_failure(cell: Cell, place: Place, reason: str, commands: Sequence[Sequence[str]] = ()) -> None:
    """Note that a cell failed, and why."""
    note = {
        "reason": reason,
        "commands": [shlex.join(it) for it in commands],
        "log": str(place.log(cell.name)),
    }
    with contextlib.suppress(OSError), atomic_file(place.failure(cell.name)) as file:  # the disk may be full
        file.write_text(json.dumps(note, indent=1), encoding="utf-8")


def failure_of(cell: Cell, place: Place) -> str:
    """A line about a cell that failed."""
    noted = read_json(place.failure(cell.name))
    return f"{cell.name}: {noted['reason']} ({noted['log']})"


def check_options(cells: Sequence[Cell], place: Place) -> None:
    """Refuse to go on with models that were begun with other options, or with other plans of nnU-Net's.

    Raises:
        InputError: One line per model.
    """
    problems = []
    for cell in {it.model: it for it in cells}.values():
        note = _plans_note(cell, place)
        begun = any(model_folder(cell).glob("fold_*/checkpoint*.pth"))
        if begun and note.is_file() and note.read_text(encoding="utf-8") != _identity(cell):
            todo = "Rename the grid's file, which names its models, or delete this one."
            expected = f"a model of {shlex.join(cell.configure)}"
            found = "one begun with other options or plans"
            problems.append(problem(model_folder(cell), expected=expected, found=found, todo=todo))
    if problems:
        raise InputError(*problems)


def _plans_are_written(cell: Cell, place: Place) -> bool:
    """Whether the plans of a cell were written by the command that it has now."""
    note = _plans_note(cell, place)
    written = note.is_file() and note.read_text(encoding="utf-8") == _identity(cell)
    return written and _plans_file(cell, cell.plans).is_file()


def _identity(cell: Cell) -> str:
    """What its plans depend on: the command that writes them and the plans that it starts from."""
    source = _plans_file(cell, cell.dataset.plans)
    digest = hashlib.blake2b(source.read_bytes(), digest_size=8).hexdigest() if source.is_file() else ""
    return f"{shlex.join(cell.configure)}\n{digest}\n"


def _plans_file(cell: Cell, name: str) -> Path:
    root = environment_folder("nnUNet_preprocessed", must_exist=False)
    return root / cell.dataset.folder_name / f"{name}.json"


def _plans_note(cell: Cell, place: Place) -> Path:
    return place.folder / "plans" / f"{file_name(f'{cell.dataset.folder_name} {cell.plans}')}.txt"


def call(
    commands: Sequence[Sequence[str]],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    held: int | None = None,
) -> int:
    """Run commands one after another until one fails; what they print goes to a log.

    Args:
        commands: Words of each.
        log: Added to.
        environment: Variables beside this process's own.
        held: A lock's file that they hold, too: a training that outlives a killed runner is not begun a second time.

    Returns:
        The status of the last one that was run.
    """
    with log.open("a", encoding="utf-8") as stream:
        for command in commands:
            stream.write(f"$ {shlex.join(command)}\n")
            stream.flush()
            try:
                status = _child(command, stream, {**os.environ, **(environment or {}), "PATH": _path()}, held)
            except FileNotFoundError as error:
                stream.write(f"{error}\n")
                return 127
            if status:
                return status
    return 0


def interrupt() -> None:
    """End all commands that run, and those that are just being started."""
    _INTERRUPTED.set()
    for child in list(_RUNNING):
        _end(child)


def resume() -> None:
    """Let commands run again after `interrupt`."""
    _INTERRUPTED.clear()


def _end(child: subprocess.Popen[bytes]) -> None:
    """By SIGTERM: whoever runs in the background may ignore SIGINT."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)


def _child(command: Sequence[str], stream: IO[str], environment: Mapping[str, str], held: int | None) -> int:
    """Run a command in a process group of its own, of which nothing is left when it ends."""
    child = subprocess.Popen(
        command,
        stdout=stream,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=environment,
        pass_fds=() if held is None else (held,),
        start_new_session=True,
    )
    _RUNNING.add(child)
    if _INTERRUPTED.is_set():  # before it could be seen
        _end(child)
    try:
        return child.wait()
    finally:
        _RUNNING.discard(child)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # workers of a killed training would hold the lock for ever


def _path() -> str:
    """With the commands of this Python's environment at the end: it need not be activated."""
    return f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{Path(sys.executable).parent}"
