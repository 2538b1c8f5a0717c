"""Trainers as `nnUNetv2_train` makes them, and their losses side by side."""

from __future__ import annotations

import json

import torch

from nnunet_dml.nnunet import trainers
from tests.conftest import DATASET


def build(name, folders, dataset=DATASET, plans="tiny", configuration="2d", fold=0, **changes):
    """A trainer as `nnUNetv2_train` makes it; `changes` are option groups."""
    base = folders.preprocessed / dataset
    read = json.loads((base / f"{plans}.json").read_text())
    read["nnunet_dml"] = {**read.get("nnunet_dml", {}), **changes}
    read["continue_training"] = False
    described = json.loads((base / "dataset.json").read_text())
    return getattr(trainers, name)(read, configuration, fold, described, torch.device("cpu"))


def check_equal_losses(ours, stock, batch_dice):
    """Both trainers' losses on the same outputs and targets, value and gradient."""
    for trainer in (ours, stock):
        trainer.configuration_manager.configuration["batch_dice"] = batch_dice
        trainer.initialize()
    batch = next(stock.get_dataloaders()[1])
    outputs = [output.detach().requires_grad_() for output in stock.network(batch["data"])]
    values, gradients = [], []
    for trainer in (ours, stock):
        loss = trainer.loss(outputs, [target.clone() for target in batch["target"]])
        values.append(loss.detach())
        gradients.append(torch.autograd.grad(loss, outputs[:-1]))
    torch.testing.assert_close(values[0], values[1], atol=1e-5, rtol=0)
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-7, rtol=1e-4)
