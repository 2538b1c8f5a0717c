"""How everything here is measured: times in alternation, memory in fresh processes, growth over size.

A row is a module with `measure(options) -> Row` and, for what it measures, `candidates(**point) -> {name: call}`: what is compared
at one point (a size, a device), ready to be called; ours come first. A call does the same work every time.
`python -m benchmarks._timing MODULE THREADS POINT NAMES` measures them in a process of its own each, a fork of one that has done
the imports.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SIZES = ("full", "quick", "minute")
ROUNDS = {"full": 9, "quick": 5, "minute": 2}
MARK = "measured: "
Point = Mapping[str, Any]  # what JSON can hold


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    folder: Path  # for files, which go away
    size: str = "full"  # one of SIZES; "minute" is for tests
    devices: tuple[str, ...] = ("cpu",)
    threads: int = 1

    @property
    def rounds(self) -> int:
        """Timed calls of each candidate."""
        return ROUNDS[self.size]


@dataclass(frozen=True)
class Line:
    """One candidate: its times, and its memory beyond what there was before (None: not measured)."""

    seconds: tuple[float, ...] = ()  # none where it was killed for want of memory
    mib: float | None = None
    value: Any = None  # what the call returned, where it is a list
    had: float = math.nan  # MiB that it could have had, where it was killed

    @property
    def median(self) -> float:
        """Of the seconds; NaN without any."""
        return statistics.median(self.seconds) if self.seconds else math.nan

    def scaled(self, factor: float) -> Line:
        """Of a candidate that did a share of the work."""
        mib = None if self.mib is None else factor * self.mib
        return replace(self, seconds=tuple(factor * it for it in self.seconds), mib=mib)


@dataclass(frozen=True)
class Aim:
    """A figure, and what it was to be."""

    what: str
    found: float
    sense: str  # "≤" or "≥"
    limit: float

    @property
    def met(self) -> bool:
        """Whether it is; a figure that could not be measured has met nothing."""
        return self.found <= self.limit if self.sense == "≤" else self.found >= self.limit


@dataclass(frozen=True)
class Table:
    """Candidates at one point, ours first."""

    title: str
    lines: Mapping[str, Line]
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """Candidates over a size."""

    over: str
    sizes: Sequence[float]
    lines: Mapping[str, Sequence[Line]]
    reason: str = ""  # why ours is not linear, where it is not


@dataclass(frozen=True)
class Row:
    """What a module found out."""

    name: str
    title: str
    text: str
    tables: list[Table] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # what this machine cannot measure
    failed: bool = False
    measured: str = ""  # by which command, on what, of which version, when


def compare(
    module: str, point: Point, options: Options, *, rounds: int = 0, memory: bool = True, apart: bool = False
) -> dict[str, Line]:
    """Time the candidates of a module at a point, in alternating order, after a round of warm-up.

    Args:
        module: Name of the row's module, its `__name__`.
        point: Arguments of its `candidates`.
        options: As given to the row.
        rounds: How many, if not the options'.
        memory: Whether to run each once more in a fresh process, for its memory.
        apart: Time in fresh processes, too: for what may be killed for want of memory.
    """
    rounds = rounds or options.rounds
    if apart:
        names = list(importlib.import_module(module).CANDIDATES)
        order = [it for i in range(rounds) for it in (names if i % 2 == 0 else reversed(names))]
        return in_fresh_processes(module, order, point, options.threads, timing=True)
    calls = importlib.import_module(module).candidates(**point)
    seconds = alternate(calls, rounds)
    names = list(calls)
    del calls
    gc.collect()
    fresh = in_fresh_processes(module, names, point, options.threads) if memory else {}
    return {name: Line(tuple(seconds[name]), fresh[name].mib if name in fresh else None) for name in names}


def alternate(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, forwards and backwards in turn; the first round warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + 1):
        for name in list(calls) if i % 2 == 0 else reversed(list(calls)):
            took = timed(calls[name])[0]
            if i:
                seconds[name].append(took)
    return seconds


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the clock, and what the call returned."""
    _synchronise()
    start = time.perf_counter()
    result = call()
    _synchronise()
    return time.perf_counter() - start, result


def _synchronise() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def in_fresh_processes(
    module: str, names: Sequence[str], point: Point, threads: int, *, timing: bool = False
) -> dict[str, Line]:
    """Each name's call in a process of its own, in this order; a name may come several times.

    Args:
        module: Of the row.
        names: Of its candidates.
        point: Arguments of its `candidates`.
        threads: Of PyTorch.
        timing: Whether the seconds matter, not the memory alone.

    Returns:
        Lines with the median of the memory; without seconds where a process was killed.

    Raises:
        RuntimeError: One failed otherwise.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if not timing:
        # large arrays go back to the system when they are freed, so that none hides in what was there before; that costs time
        environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 16)
    words = [module, str(threads), json.dumps(dict(point)), json.dumps(list(names))]
    command = [sys.executable, "-m", "benchmarks._timing", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module}, {dict(point)}: {done.stderr[-2000:]}")
    found: dict[str, list[Any]] = {name: [] for name in dict.fromkeys(names)}
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            name, its = json.loads(line.removeprefix(MARK))
            found[name].append(its)
    return {name: _line(its) for name, its in found.items()}


def _line(calls: list[Any]) -> Line:
    if killed := [it["had"] for it in calls if "had" in it]:
        return Line(had=killed[0])
    memory = statistics.median(it["mib"] for it in calls)
    return Line(tuple(it["seconds"] for it in calls), memory, calls[0]["value"])


def peak_mib(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """How much a call needs at most beyond what there is before, in MiB; its seconds; what it returned."""
    torch = sys.modules.get("torch")
    gc.collect()
    if torch is not None and torch.cuda.is_initialized():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        seconds, value = timed(call)
        return (torch.cuda.max_memory_allocated() - before) / 2**20, seconds, value
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text(
        "5", encoding="ascii"
    )  # the greatest size becomes the present one
    before = _status("VmRSS")
    seconds, value = timed(call)
    return (_status("VmHWM") - before) / 1024, seconds, value


def _status(entry: str, file: str = "/proc/self/status") -> int:
    found = re.search(rf"{entry}:\s+(\d+) kB", Path(file).read_text(encoding="ascii"))
    assert found is not None
    return int(found[1])


def _available() -> float:
    """MiB that a new process can have."""
    return _status("MemAvailable", "/proc/meminfo") / 1024


def over(
    module: str, name: str, values: Sequence[Any], points: Iterable[Point], options: Options, **how: Any
) -> Curve:
    """The curve of a module's candidates over points of growing size; without memory unless `how` says so."""
    found = [compare(module, point, options, **{"memory": False, **how}) for point in points]
    return Curve(name, values, {it: [lines[it] for lines in found] for it in found[0]})


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log value over log size by least squares: 1 is linear; NaN where it cannot be said."""
    if len(sizes) < 2 or not all(it > 0 for it in values):
        return math.nan
    return statistics.linear_regression([math.log(it) for it in sizes], [math.log(it) for it in values]).slope


def main(module: str, threads: str, point: str, names: str) -> None:
    """Print seconds, MiB and value of each call as JSON; of one that was killed the MiB that it could have had."""
    importlib.import_module(module)
    killed = set()
    for name in json.loads(names):
        if name in killed:
            continue
        had = _available()
        if (child := os.fork()) == 0:
            status = 1
            try:
                _in_fork(module, name, int(threads), json.loads(point))
                status = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            killed.add(name)
            print(MARK + json.dumps([name, {"had": had}]), flush=True)
        elif status:
            sys.exit(1)


def _in_fork(module: str, name: str, threads: int, point: dict[str, Any]) -> None:
    """One call; a call at the smallest size before it loads what is loaded late."""
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")  # no other process has to go
    row = sys.modules[module]
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if hasattr(row, "SMALLEST"):
        row.candidates(**{**point, **row.SMALLEST})[name]()
    mib, seconds, value = peak_mib(row.candidates(**point)[name])
    value = value if isinstance(value, list) else None
    print(MARK + json.dumps([name, {"seconds": seconds, "mib": mib, "value": value}]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
