"""The page: every aim, a section per row with its tables and curves."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks._timing import ROOT, Aim, Curve, Line, Row, Table, exponent

PACKAGES = ("torch", "nnunetv2", "monai", "torchmetrics", "SimpleITK", "numpy")
LINEAR = 0.15  # how far an exponent may be from 1


def stamp(command: str, threads: int) -> str:
    """The command, the machine without names of hosts, versions, commit and date."""
    import torch

    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*:\s*(.+)", cpus)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{it} {version(it)}" for it in PACKAGES)
    return (
        f"`{command}` ({threads} threads), {model[1].strip() if model else platform.machine()}, "
        f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, {gpu}, {date.today().isoformat()}; nnunet_dml {commit()}, "
        f"Python {platform.python_version()}, {versions}"
    )


def commit() -> str:
    """Of the repository; its version where there is no repository."""
    words = ["git", "describe", "--always", "--dirty=, changed", "--exclude=*"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else version("nnunet-dml")


def page(rows: Sequence[Row], *, figures: str | None) -> str:
    """The whole page in Markdown; `figures` is where the curves' pictures stand, seen from the page."""
    aims = [(row, aim) for row in rows for aim in row.aims]
    met = sum(aim.met for _, aim in aims)
    parts = [
        "# Speed and memory, measured beside the others",
        "",
        "Each section names its command, machine and commit. Medians (minimum – maximum) in alternating order after a round of warm-up; "
        "memory is what a fresh process needs beyond what it had before the work.",
        "",
        f"{met} of {len(aims)} aims are met."
        + "".join(f"\n\nNot measured here: {it}." for row in rows for it in row.missing),
        "",
        *aim_table(aims),
    ]
    for row in rows:
        parts += ["", f"## {row.title}", "", row.text]
        parts += ["", f"**Measured** by {row.measured}."] if row.measured else []
        for table in row.tables:
            parts += ["", *lines_table(table)]
        for curve in row.curves:
            picture = f"{figures}/{figure_name(row, curve)}" if figures else None
            parts += ["", *curve_text(curve, picture)]
    return "\n".join(parts) + "\n"


def aim_table(aims: Sequence[tuple[Row, Aim]]) -> list[str]:
    """Every figure that was to be something."""
    rows = ["| | aim | found | |", "|---|---|---|---|"]
    for row, aim in aims:
        verdict = "met" if aim.met else "**not met**"
        rows.append(
            f"| {row.name}: {aim.what} | {aim.sense} {aim.limit:.3g} | {number(aim.found)} | {verdict} |"
        )
    return rows


def lines_table(table: Table) -> list[str]:
    """Candidates at one point; how much of theirs ours takes stands in their lines."""
    memory = any(it.mib is not None for it in table.lines.values())
    head = [table.title, "time", "ours ÷ this", *(["memory", "ours ÷ this"] if memory else [])]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    ours = next(iter(table.lines.values()))
    for name, it in table.lines.items():
        cells = [name, spread(it), number(ours.median / it.median)]
        if memory:
            known = it.mib is not None and ours.mib is not None
            cells += [f"{it.mib:.0f} MiB", number(ours.mib / max(it.mib, 0.1))] if known else ["killed", ""]
        rows.append(f"| {' | '.join(cells)} |")
    return [*rows, *(["", table.note] if table.note else [])]


def curve_text(curve: Curve, picture: str | None) -> list[str]:
    """Times over the size, their exponents, and a sentence where ours is not linear."""
    head = [
        curve.over,
        *(f"{it:,.0f}".replace(",", " ") for it in curve.sizes),
        "exponent",
        "of the last step",
    ]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    found: dict[str, tuple[float, float]] = {}
    for name, lines in curve.lines.items():
        medians = [it.median for it in lines]
        found[name] = exponent(curve.sizes, medians), exponent(curve.sizes[-2:], medians[-2:])
        cells = [name, *(seconds(it) for it in medians), *(f"{it:.2f}" for it in found[name])]
        rows.append(f"| {' | '.join(cells)} |")
        if all(it.mib is not None for it in lines):
            rows.append(f"| {name}, MiB | {' | '.join(f'{it.mib:.0f}' for it in lines)} | | |")
    said = []
    for name, (slope, last) in found.items():
        if name.startswith(("nnunet_dml", "soft", "nnUNetTrainerDML")) and not abs(slope - 1) <= LINEAR:
            said.append(
                f"{name}: time grows as {curve.over}^{slope:.2f}, not linearly: {why(curve, slope, last)}."
            )
    return [
        *rows,
        *(["", " ".join(said)] if said else []),
        *(["", f"![Time over {curve.over}]({picture})"] if picture else []),
    ]


def why(curve: Curve, slope: float, last: float) -> str:
    """The reason that the row knows, else what the curve itself shows."""
    if curve.reason:
        return curve.reason
    if slope < 1 and last > slope:
        return f"a fixed cost weighs at small sizes, the last step has {last:.2f}"
    return "each step costs less than its share" if slope < 1 else "the reason is not known"


def figure_name(row: Row, curve: Curve) -> str:
    """Of the picture's file."""
    return f"speed_{row.name}_{curve.over}.svg"


def draw(rows: Sequence[Row], folder: Path) -> None:
    """A picture of every curve, both axes logarithmic; the same figures give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        for curve in row.curves:
            with mpl.rc_context({"svg.hashsalt": "speed", "font.size": 9}):
                figure = Figure(figsize=(5, 3.2), layout="constrained")
                axes = figure.subplots()
                for name, lines in curve.lines.items():
                    axes.loglog(curve.sizes, [it.median for it in lines], "o-", label=name)
                axes.set(xlabel=curve.over, ylabel="seconds", title=row.title)
                axes.grid(which="major", alpha=0.3)
                axes.legend(fontsize=7)
                figure.savefig(folder / figure_name(row, curve), metadata={"Date": None})


def spread(line: Line) -> str:
    """Median (minimum – maximum)."""
    if not line.seconds:
        return "killed"
    if len(line.seconds) == 1:
        return f"{seconds(line.median)}, once"
    return f"{seconds(line.median)} ({seconds(min(line.seconds))} – {seconds(max(line.seconds))})"


def seconds(value: float) -> str:
    """With three digits, in minutes, seconds or thousandths."""
    if math.isnan(value):
        return "killed"
    if value >= 600:
        return f"{value / 60:.3g} min"
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def number(value: float) -> str:
    """With three digits."""
    return "" if math.isnan(value) else f"{value:.3g}"
