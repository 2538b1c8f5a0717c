"""The same work on many cases, in this process or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

from nnunet_dml._checks import InputError, problem

T = TypeVar("T")
R = TypeVar("R")


def each(
    work: Callable[[T], R],
    items: Sequence[T],
    *,
    processes: int,
    title: str,
    initializer: Callable[[], object] | None = None,
) -> list[R]:
    """The work's result for each item in order, with a progress bar.

    Args:
        work: A function that can be pickled.
        items: What it is called with.
        processes: How many processes work at once; 1 works in this one.
        title: What the progress bar says.
        initializer: Called once in each worker process.

    Raises:
        InputError: With every problem of every item; any other error ends the work at once.
    """
    if processes < 1:
        raise InputError(problem("-np", expected="at least 1 process", found=str(processes)))
    attempt = partial(_attempt, work)
    if processes == 1 or len(items) < 2:
        results = list(tqdm(map(attempt, items), total=len(items), desc=title, unit="case", delay=1))
    else:
        # spawned, as in nnU-Net: the threads of PyTorch and SimpleITK do not survive a fork
        workers, context = min(processes, len(items)), get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=initializer) as pool:
            try:
                results = _watched(pool.map(attempt, items), len(items), title, workers)
            except BrokenProcessPool:
                found = "one was killed, perhaps for want of memory"
                todo = "Use fewer."
                raise InputError(
                    problem("-np", expected="worker processes to live", found=found, todo=todo)
                ) from None
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    problems = [line for result in results if isinstance(result, InputError) for line in result.problems]
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return [result for result in results if not isinstance(result, InputError)]


def _watched(results: Iterable[R], total: int, title: str, workers: int) -> list[R]:
    """The results as they come; until the first, which takes seconds, the bar says what is waited for."""
    came: list[R] = []
    with tqdm(total=total, desc=f"{title} (starting {workers} processes)", unit="case") as bar:
        for result in results:
            if not came:
                bar.set_description(title, refresh=False)
            came.append(result)
            bar.update()
    return came


def _attempt(work: Callable[[T], R], item: T) -> R | InputError:
    try:
        return work(item)
    except InputError as error:
        return error
