"""A small grid, and commands that only write down how they were called."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest

from nnunet_dml.benchmark.cells import resume

GRID = """
title: A grid
datasets:
  one: {id: 901, name: One}
labels:
  soft: {labels.source: uniform}
  hard: {labels.source: hard}
methods:
  dml: {trainer: nnUNetTrainerDML}
  jml: {trainer: nnUNetTrainerJML, options: {loss.weight_ce: 1.0}}
folds: [0, 1]
quick:
  folds: [0]
  methods: [dml]
table:
  metrics: [dice, ece_pooled]
  paper: {one: {"soft, dml": {dice: 91.5}}}
"""

TRAIN = """#!/bin/bash
# nnUNetv2_train ID CONFIGURATION FOLD -tr TRAINER -p PLANS …
echo "train gpu=$CUDA_VISIBLE_DEVICES $*" >> "$CALLS"
sleep "${SLOW:-0}"
out="$nnUNet_results/Dataset$1_One/$5__$7__$2/fold_$3/validation"
mkdir -p "$out"; touch "$out/../checkpoint_best.pth"
case "$7" in *$BROKEN*) echo "no memory left"; exit 3;; esac
mkdir -p "$out"; echo '{}' > "$out/summary.json"
"""
OURS = """#!/bin/bash
echo "dml $*" >> "$CALLS"
while [ $# -gt 0 ]; do [ "$1" = -o ] && echo '{}' > "$nnUNet_preprocessed/Dataset901_One/$2.json"; shift; done
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """nnU-Net's folders with preprocessed data, fake commands on the path, and a grid's file."""
    resume()  # where a test before was interrupted
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    made = tmp_path / "preprocessed" / "Dataset901_One"
    (made / "nnUNetPlans_2d").mkdir(parents=True)
    plans = {"configurations": {"2d": {"data_identifier": "nnUNetPlans_2d"}}}
    (made / "nnUNetPlans.json").write_text(json.dumps(plans))
    (made / "dataset.json").write_text(json.dumps({"numTraining": 2}))
    for case in ("a", "b"):
        (made / "nnUNetPlans_2d" / f"{case}.pkl").touch()
    maps = made / "nnUNetPlans_2d_soft" / "uniform"
    maps.mkdir(parents=True)
    for case in ("a", "b"):
        (maps / f"{case}.b2nd").touch()
    (tmp_path / "raw" / "Dataset901_One").mkdir()
    (tmp_path / "raw" / "Dataset901_One" / "dataset.json").write_text("{}")
    (tmp_path / "bin").mkdir()
    for name, text in (("nnUNetv2_train", TRAIN), ("nnunet-dml", OURS)):
        command = tmp_path / "bin" / name
        command.write_text(text)
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))
    monkeypatch.setenv("BROKEN", "nothing")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "calls.txt").touch()
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID)

    def calls(kind):
        return [it for it in (tmp_path / "calls.txt").read_text().splitlines() if it.startswith(f"{kind} ")]

    return SimpleNamespace(path=tmp_path, grid=grid, calls=calls, setenv=monkeypatch.setenv, made=made)
