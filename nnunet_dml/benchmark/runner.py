"""Training all cells of a grid, on this machine or on a cluster, with one bar for all of it."""

from __future__ import annotations

import queue
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from nnunet_dml._checks import InputError, problem
from nnunet_dml.benchmark.cells import Place, State, interrupt, is_done, note_failure, resume, run_cell
from nnunet_dml.benchmark.training import Cell

_POLL = 2.0  # seconds between looks at a cluster's jobs

Run = Callable[[list[Cell], Callable[[Cell, State], None]], None]


def run(cells: Sequence[Cell], execute: Run) -> Counter[State]:
    """Train the cells that are not done; students after their teachers.

    Args:
        cells: All of a grid.
        execute: `on_this_machine` or `on_a_cluster`, with its options.

    Returns:
        How many cells ended in which state, those done before included.
    """
    counted: Counter[State] = Counter()
    with tqdm(total=len(cells), desc="Training", unit="cell") as bar:

        def note(cell: Cell, state: State) -> None:
            counted[state] += 1
            bar.update()
            bar.set_postfix_str(", ".join(f"{n} {it}" for it, n in sorted(counted.items()) if it != "done"))
            if state == "failed":
                bar.write(f"failed: {cell.name}")

        for students in (False, True):
            wave = []
            for cell in cells:
                if (cell.teacher is not None) != students:
                    continue
                if is_done(cell):
                    note(cell, "done")
                else:
                    wave.append(cell)
            if wave:
                execute(wave, note)
    return counted


def on_this_machine(place: Place, *, jobs: int = 1, gpus: Sequence[int] = ()) -> Run:
    """Run cells here.

    Args:
        place: Of the grid.
        jobs: How many at once (per GPU, where there are some).
        gpus: Their numbers, given to the cells in turn.
    """
    if jobs < 1:
        raise InputError(problem("-j", expected="at least 1 cell at once", found=str(jobs)))
    if min(gpus, default=0) < 0:
        raise InputError(problem("--gpus", expected="numbers from 0 on", found=str(min(gpus))))
    slots: queue.Queue[Mapping[str, str]] = queue.Queue()
    for _ in range(jobs):
        for environment in [{"CUDA_VISIBLE_DEVICES": str(gpu)} for gpu in gpus] or [{}]:
            slots.put(environment)

    def one(cell: Cell) -> State:
        with _taken(slots) as environment:
            return run_cell(cell, place, environment)

    def execute(cells: list[Cell], note: Callable[[Cell, State], None]) -> None:
        with _sigterm_interrupts(), ThreadPoolExecutor(slots.qsize()) as pool:
            resume()
            try:
                waiting = {pool.submit(one, cell): cell for cell in cells}
                for done in as_completed(waiting):
                    note(waiting[done], done.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                interrupt()  # what the trainings saved is gone on with
                raise

    return execute


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """`kill` and a cluster's scheduler end a run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # which alone may ask for signals
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Job:
    """`run_cell` as submitit's jobs are: at its time limit a job is submitted again, and goes on."""

    def __call__(self, cell: Cell, place: Place) -> State:
        """Train."""
        return run_cell(cell, place)

    def checkpoint(self, cell: Cell, place: Place) -> Any:
        """What submitit submits then."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, cell, place)


def on_a_cluster(
    place: Place,
    *,
    cluster: str = "slurm",
    jobs: int | None = None,
    parameters: Mapping[str, object] | None = None,
) -> Run:
    """Run cells through submitit, each a job.

    Args:
        place: Of the grid; its folder must be seen by all nodes.
        cluster: `slurm`, or `local` for processes of submitit's on this machine, all at once.
        jobs: How many at once; None leaves it to the cluster.
        parameters: Of submitit's `update_parameters`, such as `timeout_min` or `slurm_partition`.

    Raises:
        InputError: submitit or SLURM is absent, or a parameter is unknown.
    """
    try:
        import submitit
    except ImportError:
        todo = "Install it: pip install 'nnunet-dml[slurm]'."
        raise InputError(
            problem("--slurm", expected="submitit", found="it not installed", todo=todo)
        ) from None
    if cluster == "slurm" and "timeout_min" not in (parameters or {}):
        todo = "Without it submitit ends every job after 5 minutes."
        expected = "timeout_min=MINUTES, the longest that a training may take"
        raise InputError(problem("--slurm", expected=expected, found="none", todo=todo))
    try:
        executor = submitit.AutoExecutor(folder=place.folder / "jobs", cluster=cluster)
        asked = {"name": place.folder.name, **(parameters or {})}
        if jobs is not None and cluster == "slurm":
            asked["slurm_array_parallelism"] = jobs
        executor.update_parameters(**asked)
    except RuntimeError as error:
        todo = "Run on a machine of the cluster, or without --slurm."
        raise InputError(problem("--slurm", expected="SLURM (sbatch)", found=str(error), todo=todo)) from None
    except (NameError, TypeError, AssertionError) as error:
        found = " ".join(str(error).split())[:200]
        raise InputError(problem("--slurm", expected="parameters of submitit", found=found)) from None

    def execute(cells: list[Cell], note: Callable[[Cell, State], None]) -> None:
        with executor.batch():
            submitted = [executor.submit(Job(), cell, place) for cell in cells]
        waiting = list(zip(submitted, cells, strict=True))
        try:
            while waiting:
                for job, cell in list(waiting):
                    if job.done():
                        waiting.remove((job, cell))
                        error = job.exception()
                        if error is not None:
                            note_failure(cell, place, f"{_reason(error)} ({job.paths.stderr})")
                        note(cell, "failed" if error is not None else job.result())
                time.sleep(_POLL if waiting else 0)
        except BaseException:
            for job, _ in waiting:
                job.cancel()
            raise

    return execute


def _reason(error: Exception) -> str:
    """The last line of the traceback that submitit's error quotes between two rules, or the error's beginning."""
    quoted = re.split(r"-{10,}", str(error))
    lines = [it.strip() for it in quoted[1 if len(quoted) > 2 else 0].splitlines() if it.strip()]
    return lines[-1][:300] if len(quoted) > 2 and lines else " ".join(lines)[:300]


@contextmanager
def _taken(slots: queue.Queue[Mapping[str, str]]) -> Iterator[Mapping[str, str]]:
    slot = slots.get()
    try:
        yield slot
    finally:
        slots.put(slot)
