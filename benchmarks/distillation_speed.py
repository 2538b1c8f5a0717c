"""A training step with a calibrated teacher against one without, and where its time goes.

python benchmarks/distillation_speed.py -d 17 -p student_kde --plain student [-c 2d] [--rounds 5] [--steps 10]

Both plans are of the same student (`nnunet-dml configure … -o student`, and again with `--teacher … -o student_kde`); the
teacher is trained. Both trainers run in this process, in alternating order after a round of warm-up, on the same
batches; loading them is not counted. "Student" is its forward and backward pass and the optimizer's step. Memory is how
much the greatest resident size of a fresh process grows by two steps, or on a GPU what is allocated at most.
Times are medians over the rounds (minimum – maximum) of the mean over a round's steps.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json

os.environ["nnUNet_n_proc_DA"] = "0"

from nnunet_dml._folders import environment_folder, find_dataset
from nnunet_dml.nnunet.trainers import nnUNetTrainerDML, nnUNetTrainerDML_KD
from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer

PLAIN, TAUGHT = "without a teacher", "with a calibrated teacher"


def started(trainer_class: type[SoftLabelTrainer], options: argparse.Namespace, plans_name: str) -> Any:
    """A trainer just before its first step; on fold 0, with results in a folder that goes away."""
    folder = find_dataset(options.dataset, environment_folder("nnUNet_preprocessed"))
    plans = {**load_json(str(folder / f"{plans_name}.json")), "continue_training": False}
    with TemporaryDirectory() as scratch, contextlib.redirect_stdout(None):
        results = os.environ["nnUNet_results"]
        os.environ["nnUNet_results"] = scratch  # where the student's folder is made
        trainer = trainer_class(
            plans, options.configuration, 0, load_json(str(folder / "dataset.json")), options.device
        )
        os.environ["nnUNet_results"] = results  # where the teacher is
        trainer.initialize()
        trainer.on_train_start()
        trainer.on_train_epoch_start()
    return trainer


class Clock:
    """Seconds spent in calls, by name."""

    def __init__(self, device: torch.device) -> None:
        """Start at zero."""
        self.seconds: dict[str, float] = defaultdict(float)
        self.device = device

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its time noted."""

        def run(*arguments: Any, **named: Any) -> Any:
            self.wait()
            start = time.perf_counter()
            result = call(*arguments, **named)
            self.wait()
            self.seconds[name] += time.perf_counter() - start
            return result

        return run

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def watched(trainer: Any) -> Clock:
    """A clock on the parts of a trainer's step."""
    clock = Clock(trainer.device)
    if isinstance(trainer, nnUNetTrainerDML_KD):
        trainer.teacher.forward = clock.timed("teacher, forward", trainer.teacher.forward)
        trainer.calibration = clock.timed("calibration", trainer.calibration)
        trainer.record.add_teacher = clock.timed("record of the epoch", trainer.record.add_teacher)
    trainer.loss.forward = clock.timed("loss, forward", trainer.loss.forward)
    trainer.train_step = clock.timed("step", trainer.train_step)
    return clock


def peak_mib(trainer: Any) -> float:
    """What two steps need beyond what there is before them."""
    batches = [next(trainer.dataloader_train) for _ in range(2)]
    if trainer.device.type == "cuda":
        before = torch.cuda.memory_allocated(trainer.device)
        torch.cuda.reset_peak_memory_stats(trainer.device)
    else:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        before = pages * resource.getpagesize()
    for batch in batches:
        trainer.train_step(batch)
    if trainer.device.type == "cuda":
        return (torch.cuda.max_memory_allocated(trainer.device) - before) / 2**20
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20


def main() -> None:
    """Measure and print; with `--memory NAME` only the memory of one."""
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
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    made = {PLAIN: (nnUNetTrainerDML, options.plain), TAUGHT: (nnUNetTrainerDML_KD, options.plans)}
    if options.memory:
        print(peak_mib(started(made[options.memory][0], options, made[options.memory][1])))
        return
    memory = {
        name: float(
            subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--memory", name],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout.split()[-1]
        )
        for name in made
    }
    trainers = {name: started(kind, options, plans) for name, (kind, plans) in made.items()}
    clocks = {name: watched(trainer) for name, trainer in trainers.items()}
    seconds: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in made}
    for i in range(options.rounds + 1):
        batches = [next(trainers[PLAIN].dataloader_train) for _ in range(options.steps)]
        for name in list(made) if i % 2 == 0 else list(reversed(made)):
            clocks[name].seconds.clear()
            for batch in batches:
                trainers[name].train_step(dict(batch))
            if i:  # the first round warms up
                spent = {part: total / options.steps for part, total in clocks[name].seconds.items()}
                spent["student"] = 2 * spent["step"] - sum(spent.values())
                for part, value in spent.items():
                    seconds[name][part].append(value)
    print(
        f"torch {torch.__version__}, {options.device}, {options.threads} threads; {options.dataset} {options.configuration}, "
        f"batch {tuple(batches[0]['data'].shape)}, {options.rounds} rounds of {options.steps} steps"
    )
    for name, parts in seconds.items():
        whole = statistics.median(parts["step"])
        print(f"{name}: peak {memory[name]:.0f} MiB")
        for part, values in parts.items():
            median = statistics.median(values)
            spread = f"{1e3 * min(values):.1f}–{1e3 * max(values):.1f}"
            print(
                f"  {part:<20} {1e3 * median:8.1f} ms ({spread})  {100 * median / whole:5.1f} % of the step"
            )
    ratio = statistics.median(seconds[TAUGHT]["step"]) / statistics.median(seconds[PLAIN]["step"])
    print(f"step with ÷ without a teacher: {ratio:.2f}; {trainers[TAUGHT].options.teacher.calibration}")


if __name__ == "__main__":
    main()
