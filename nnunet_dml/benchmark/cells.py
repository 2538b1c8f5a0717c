"""Training one cell of a grid: once, whoever else works on the same grid, and so that what was killed goes on."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file, read_json
from nnunet_dml._folders import environment_folder
from nnunet_dml.benchmark.grid import Cell

State = Literal["done", "failed", "busy", "open"]
_TAIL = 5  # lines of a log that are shown


@dataclass(frozen=True)
class Place:
    """Where a grid's locks, logs and failures are noted: the same for every runner, whatever folder he is in."""

    folder: Path
    device: str | None = None
    """nnU-Net's `-device`; None is its default."""

    @classmethod
    def of(cls, name: str, device: str | None = None) -> Place:
        """That of a grid, in nnUNet_results; it is made.

        Raises:
            InputError: nnUNet_results is not set.
        """
        folder = environment_folder("nnUNet_results", must_exist=False) / f"benchmark_{name}"
        for part in ("locks", "logs", "failed", "plans"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        return cls(folder, device)

    @contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[int | None]:
        """A lock between processes, which the system frees when its holders die. Its file stays.

        Yields:
            The file that holds it, for child processes that shall hold it, too; None where another process has it and
            `wait` is false.
        """
        with (self.folder / "locks" / f"{_file_name(name)}.lock").open("a", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield None
            else:
                yield file.fileno()

    def log(self, name: str) -> Path:
        """What a command printed."""
        return self.folder / "logs" / f"{_file_name(name)}.txt"

    def failure(self, name: str) -> Path:
        """The note of a cell that failed."""
        return self.folder / "failed" / f"{_file_name(name)}.json"


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
    with place.lock(cell.name, wait=False) as held:
        if held is None:
            return "busy"
        place.failure(cell.name).unlink(missing_ok=True)
        if is_done(cell):
            return "done"
        log = place.log(cell.name)
        if cell.teacher is not None:
            with place.lock(cell.teacher.name):  # another runner may still be training it
                pass
            if not is_done(cell.teacher):
                log.write_text(f"its teacher is not trained: {cell.teacher.name}\n", encoding="utf-8")
                _note_failure(cell, place, [], 1, log)
                return "failed"
        with place.lock(f"{cell.dataset.folder_name} {cell.plans}"):  # folds of a model share their plans
            commands = [] if _has_plans(cell, place) else [cell.configure]
            code = call(commands, log, environment)
            if commands and code == 0:
                with atomic_file(_plans_note(cell, place)) as file:
                    file.write_text(shlex.join(cell.configure), encoding="utf-8")
        command = cell.train(place.device)
        code = code or call([command], log, environment, held=held)
        if code == 0 and is_done(cell):
            return "done"
        _note_failure(cell, place, [*commands, command], code, log)
        return "failed"


def failure_of(cell: Cell, place: Place) -> str:
    """A line about a cell that failed."""
    noted = read_json(place.failure(cell.name))
    return f"{cell.name}: status {noted['status']}, {noted['last']} ({noted['log']})"


def check_data(cells: Sequence[Cell]) -> None:
    """Refuse a grid whose data are not preprocessed.

    Raises:
        InputError: One line per data set, with the commands that are missing.
    """
    problems = []
    for dataset in {it.dataset.id: it.dataset for it in cells}.values():
        folder = environment_folder("nnUNet_preprocessed", must_exist=False) / dataset.folder_name
        plans = folder / f"{dataset.plans}.json"
        done = plans.is_file()
        if done:
            identifier = (
                read_json(plans)["configurations"].get(dataset.configuration, {}).get("data_identifier")
            )
            done = identifier is None or (folder / identifier).is_dir()
        if not done:
            todo = (
                f"Run `nnUNetv2_plan_and_preprocess -d {dataset.id} -c {dataset.configuration}`, or let "
                "`nnunet-dml benchmark run … --data FOLDER` prepare it from the raw data."
            )
            expected = f"preprocessed data of {dataset.folder_name} for {dataset.configuration}"
            problems.append(problem(folder, expected=expected, found="none", todo=todo))
    if problems:
        raise InputError(*problems)


def _has_plans(cell: Cell, place: Place) -> bool:
    """Whether the plans of a cell were written by the command that it has now."""
    root = environment_folder("nnUNet_preprocessed", must_exist=False)
    note = _plans_note(cell, place)
    written = note.is_file() and note.read_text(encoding="utf-8") == shlex.join(cell.configure)
    return written and (root / cell.dataset.folder_name / f"{cell.plans}.json").is_file()


def _plans_note(cell: Cell, place: Place) -> Path:
    return place.folder / "plans" / f"{_file_name(f'{cell.dataset.folder_name} {cell.plans}')}.txt"


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
                done = subprocess.run(
                    command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                    env={**os.environ, **(environment or {})}, pass_fds=() if held is None else (held,), check=False,
                )  # fmt: skip
            except OSError as error:
                stream.write(f"{error}\n")
                return 127
            if done.returncode:
                return done.returncode
    return 0


def _note_failure(
    cell: Cell, place: Place, commands: Sequence[Sequence[str]], status: int, log: Path
) -> None:
    lines = [it for it in log.read_text(encoding="utf-8", errors="replace").splitlines() if it.strip()]
    note = {
        "cell": cell.name,
        "commands": [shlex.join(it) for it in commands],
        "status": status,
        "last": lines[-1][:300] if lines else "",
        "tail": lines[-_TAIL:],
        "log": str(log),
    }
    with atomic_file(place.failure(cell.name)) as file:
        file.write_text(json.dumps(note, indent=1), encoding="utf-8")


def _file_name(name: str) -> str:
    return "".join(it if it.isalnum() or it in "-_." else "_" for it in name)
