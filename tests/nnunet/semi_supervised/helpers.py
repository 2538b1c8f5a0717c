"""What tests of semi-supervised trainings look at."""

from __future__ import annotations

import torch


def weights_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def epoch(trainer, iterations=2):
    """One epoch as nnU-Net's loop runs it."""
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    losses = [trainer.train_step(next(trainer.dataloader_train)) for _ in range(iterations)]
    trainer.on_train_epoch_end(losses)
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
    trainer.on_epoch_end()
    return [float(it["loss"]) for it in losses]


def seen_by_loss(trainer):
    """The outputs and targets of every call of the loss."""
    calls = []
    trainer.loss.register_forward_pre_hook(lambda module, arguments: calls.append(arguments))
    return calls


class SimpleIterator:
    def __init__(self, draw):
        self.draw = draw

    def __next__(self):
        return self.draw()
