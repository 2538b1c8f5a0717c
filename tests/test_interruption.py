"""`kill -9` in the middle of convert, preprocess and training: the next run finishes, with the same result.

Here with worker processes, at chosen moments; at random ones and of more commands in `robustness/test_kills.py`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.conftest import DATASET, nnunet_dml, set_folders
from tests.nnunet.convert_helpers import tree
from tests.preloaded import quick_commands

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
MODEL = "nnUNetTrainerDML__resumed__2d"


def start(*arguments: str) -> subprocess.Popen:
    """Start `nnunet-dml` in a process group of its own, which all of its processes join."""
    return subprocess.Popen(
        [quick_commands() / "nnunet-dml", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=os.setpgrp,
    )


def kill_when(process: subprocess.Popen, moment, *, at_most: float = 300) -> bool:
    """Kill a process and its group once `moment()` holds; whether it was still running."""
    deadline = time.monotonic() + at_most
    while process.poll() is None and not moment():
        assert time.monotonic() < deadline, "the moment did not come"
        time.sleep(0.002)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)  # any of them is left
            time.sleep(0.002)
    return running


def files_of(folder: Path, pattern: str = "*") -> int:
    try:
        return sum(1 for path in folder.rglob(pattern) if path.is_file())
    except FileNotFoundError:  # a temporary folder went while it was looked through
        return 0


def convert(source: Path) -> list[str]:
    """The command; its worker processes are two."""
    return [
        "convert", "raters", str(source),
        "--dataset", "901_Phantom", "--layout", "qubiq", "--task", "1", "-np", "2",
    ]  # fmt: skip


def test_convert(tmp_path, make_phantom, monkeypatch):
    make_phantom(tmp_path / "source", cases=12, raters=3, size=32)
    (tmp_path / "whole").mkdir()
    whole = set_folders(monkeypatch, tmp_path / "whole")
    assert start(*convert(tmp_path / "source")).wait() == 0
    expected = tree(whole.raw / DATASET)
    (tmp_path / "killed").mkdir()
    killed = set_folders(monkeypatch, tmp_path / "killed")
    kills = 0
    for count in (1, 20, 45):  # files written to the temporary folder, of 60
        process = start(*convert(tmp_path / "source"))
        kills += kill_when(process, lambda count=count: files_of(killed.raw) >= count)
        assert not (killed.raw / DATASET).exists()
    assert kills == 3
    assert start(*convert(tmp_path / "source")).wait() == 0
    assert tree(killed.raw / DATASET) == expected
    assert [path.name for path in killed.raw.iterdir()] == [DATASET]


def test_preprocess(phantom):
    folder = phantom.preprocessed / DATASET / "nnUNetPlans_2d_soft"
    command = ["preprocess", "-d", "901", "-c", "2d", "--fusion", "staple", "random"]
    nnunet_dml(*command)
    expected = {name: tree(folder / name) for name in ("staple", "random")}
    assert len(expected["staple"]) == len(expected["random"]) == 10
    kills = 0
    chance = random.Random(0)
    for count in (0, 3, 11):
        for name in expected:
            for path in (folder / name).glob("*"):
                path.unlink()
        process = start(*command, "-np", "1")
        kills += kill_when(
            process, lambda count=count: files_of(folder / "staple") + files_of(folder / "random") > count
        )
        time.sleep(chance.random() / 100)
    assert kills == 3
    nnunet_dml(*command)
    assert {name: tree(folder / name) for name in expected} == expected


def test_training(phantom):
    """With a seed, a training that was killed after its second epoch ends with the same weights."""
    options = ["training.epochs=4", "training.iterations=2", "training.val_iterations=1"]
    options += ["training.save_every=1", "training.seed=3", "labels.source=uniform"]
    for name in ("resumed", "straight"):
        nnunet_dml(
            "configure", "-d", "901", "-o", name, "--features", "4", "8", "8", "8", "--batch-size", "2", "--overwrite",
            "--set", *options,
        )  # fmt: skip
    train = ["train", "901", "2d", "0", "-tr", "nnUNetTrainerDML", "-device", "cpu", "-p"]
    folder = phantom.results / DATASET / MODEL / "fold_0"
    second = folder / "checkpoint_latest.pth"

    def after_two_epochs() -> bool:
        return second.is_file() and torch.load(second, weights_only=False)["current_epoch"] == 2

    assert kill_when(start(*train, "resumed"), after_two_epochs)
    assert not (folder / "checkpoint_final.pth").exists()
    assert start(*train, "resumed", "--c").wait() == 0
    assert start(*train, "straight").wait() == 0
    weights = [
        torch.load(
            phantom.results / DATASET / MODEL.replace("resumed", name) / "fold_0" / "checkpoint_final.pth",
            weights_only=False,
        )["network_weights"]
        for name in ("resumed", "straight")
    ]
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key
    assert not list(folder.glob(".*"))
