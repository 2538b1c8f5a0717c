"""A training step with a calibrated teacher against one without, and where its time goes.

python benchmarks/distillation_speed.py -d 17 -p student_kde --plain student [-c 2d] [--rounds 5] [--steps 10]

Both plans are of the same student (`nnunet-dml configure … -o student`, and again with `--teacher … -o student_kde`); the
teacher is trained, which is why this is no row of `run.py`. Both trainers run in this process, in alternating order after a
round of warm-up, on the same batches; loading them is not counted. "Student" is its forward and backward pass and the
optimizer's step. Memory is how much a fresh process needs for two steps beyond what it had before. Times are medians over
the rounds (minimum – maximum) of the mean over a round's steps.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["nnUNet_n_proc_DA"] = "0"

import torch

from benchmarks import _trainers
from benchmarks._page import spread
from benchmarks._timing import Line, in_fresh_processes, timed
from nnunet_dml.nnunet.trainers import nnUNetTrainerDML, nnUNetTrainerDML_KD

PLAIN, TAUGHT = "without a teacher", "with a calibrated teacher"
KINDS = {PLAIN: nnUNetTrainerDML, TAUGHT: nnUNetTrainerDML_KD}


def started(name: str, dataset: str, configuration: str, plans: dict[str, str], device: str) -> Any:
    """A trainer just before its first step."""
    return _trainers.make(
        KINDS[name], configuration, device, dataset=dataset, plans=plans[name], started=True
    )


class candidates(dict[str, Callable[[], None]]):  # called as the functions of the rows are
    """Two steps of a trainer, whose batches are loaded before; made when asked for, one of them needs no teacher."""

    def __init__(self, **point: Any) -> None:
        self.point = point

    def __missing__(self, name: str) -> Callable[[], None]:
        trainer = started(name, **self.point)
        batches = [next(trainer.dataloader_train) for _ in range(2)]
        return lambda: steps(trainer, batches)


def steps(trainer: Any, batches: list[dict[str, Any]]) -> None:
    """One after the other."""
    for batch in batches:
        trainer.train_step(dict(batch))


class Clock:
    """Seconds spent in the parts of a trainer's step, by name."""

    def __init__(self, trainer: Any) -> None:
        """Put itself into the trainer's methods."""
        self.seconds: dict[str, float] = defaultdict(float)
        if isinstance(trainer, nnUNetTrainerDML_KD):
            trainer.teacher.forward = self.noted("teacher, forward", trainer.teacher.forward)
            trainer.calibration = self.noted("calibration", trainer.calibration)
            trainer.record.add_teacher = self.noted("record of the epoch", trainer.record.add_teacher)
        trainer.loss.forward = self.noted("loss, forward", trainer.loss.forward)
        trainer.train_step = self.noted("step", trainer.train_step)

    def noted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its time noted."""

        def run(*arguments: Any, **named: Any) -> Any:
            seconds, result = timed(lambda: call(*arguments, **named))
            self.seconds[name] += seconds
            return result

        return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-d", dest="dataset", required=True)
    parser.add_argument("-p", dest="plans", required=True)
    parser.add_argument("--plain", required=True, help="plans of the same student without a teacher")
    parser.add_argument("-c", dest="configuration", default="2d")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    point = {
        "dataset": options.dataset,
        "configuration": options.configuration,
        "plans": {PLAIN: options.plain, TAUGHT: options.plans},
        "device": options.device,
    }
    memory = in_fresh_processes("benchmarks.distillation_speed", list(KINDS), point, options.threads)
    trainers = {name: started(name, **point) for name in KINDS}
    clocks = {name: Clock(trainer) for name, trainer in trainers.items()}
    parts: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in KINDS}
    shape: tuple[int, ...] = ()
    for i in range(options.rounds + 1):
        batches = [next(trainers[PLAIN].dataloader_train) for _ in range(options.steps)]
        shape = tuple(batches[0]["data"].shape)
        for name in list(KINDS) if i % 2 == 0 else reversed(KINDS):
            clocks[name].seconds.clear()
            steps(trainers[name], batches)
            spent = {part: total / options.steps for part, total in clocks[name].seconds.items()}
            spent["student"] = 2 * spent["step"] - sum(spent.values())
            for part, value in spent.items():
                parts[name][part] += [value] if i else []  # the first round warms up
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads; batch {shape}")
    lines = {name: {part: Line(tuple(its)) for part, its in found.items()} for name, found in parts.items()}
    for name, found in lines.items():
        print(f"{name}: peak {memory[name].mib:.0f} MiB")
        for part, it in found.items():
            share = 100 * it.median / found["step"].median
            print(f"  {part:<20} {spread(it)}  {share:5.1f} % of the step")
    ratio = lines[TAUGHT]["step"].median / lines[PLAIN]["step"].median
    print(f"step with ÷ without a teacher: {ratio:.2f}; {trainers[TAUGHT].options.teacher.calibration}")


if __name__ == "__main__":
    main()
