"""Measure this package beside its peers, and write the page with the figures and what was aimed at.

python benchmarks/run.py [--only loss,loader,…] [--quick] [--device cpu|cuda] [--threads N] [-o PAGE]

All rows at their full size take hours on two cores and 20 GiB of memory. Each that is done is kept in benchmarks/measured, and
docs/results/speed.md is written anew of all that are there: `--only` replaces some, `--page` none. `--quick` takes minutes and prints;
with `-o` the page is of what was just measured.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # modules here are found as benchmarks.…

from benchmarks._page import draw, page, stamp
from benchmarks._store import load, save
from benchmarks._timing import ROOT, Options, Row

ROWS = ("loss", "loader", "epoch", "kde", "fusion", "evaluation", "storage", "bfloat16")
MEASURED = ROOT / "benchmarks" / "measured"
PAGE = ROOT / "docs" / "results" / "speed.md"


def measure(names: tuple[str, ...], options: Options) -> Iterator[Row]:
    """One row after the other; one that fails is said to be missing, the others go on."""
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            yield importlib.import_module(f"benchmarks.{name}").measure(options)
        except Exception as error:
            traceback.print_exc()
            missing = f"{name}, which failed with {type(error).__name__}"
            yield Row(name, name, "It failed.", missing=[missing], failed=True)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default=",".join(ROWS), help="rows, with commas between them (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--minute", action="store_true", help=argparse.SUPPRESS)  # sizes of the tests
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: the CPU, and a GPU where there is one"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-o", dest="output", type=Path)
    found = parser.parse_args()
    if unknown := set(found.only.split(",")) - set(ROWS):
        parser.error(f"--only: expected some of {', '.join(ROWS)}, found {', '.join(sorted(unknown))}")
    return found


def main() -> None:
    """Measure; write the page or print it."""
    asked = arguments()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    import torch

    torch.set_num_threads(asked.threads)
    warnings.filterwarnings("ignore")  # of the others' code
    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: expected a GPU that PyTorch can use, found none")
    both = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    size = "minute" if asked.minute else "quick" if asked.quick else "full"
    measured = stamp(shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]]), asked.threads)
    kept = size == "full" and asked.output is None
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        options = Options(Path(folder), size, (asked.device,) if asked.device else both, asked.threads)
        for row in measure(() if asked.page else tuple(asked.only.split(",")), options):
            rows.append(replace(row, measured=measured))
            if kept and not row.failed:
                save(rows[-1], MEASURED)
    output = PAGE if kept else asked.output
    if kept:
        rows = load(MEASURED, ROWS)
    text = page(rows, figures="figures" if output else None)
    if output is None:
        print(text)
        return
    draw(rows, output.parent / "figures")
    output.write_text(text, encoding="utf-8")
    print(f"Wrote {output}")


if __name__ == "__main__":
    main()
