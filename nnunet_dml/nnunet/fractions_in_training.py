"""How much of the fractions is left on their way from the maps on disk to the loss.

Nothing is imitated: patches come from the trainer's own loader through its own transforms, and targets are caught where
the trainer's own loss hands them to the loss of one resolution.
"""

from __future__ import annotations

import io
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_dml._checks import InputError, problem
from nnunet_dml.losses import CrossEntropyOverlapLoss
from nnunet_dml.nnunet import soft_maps
from nnunet_dml.nnunet.findings import Step
from nnunet_dml.nnunet.fractions_way import Tally
from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer

LOADED, AUGMENTED, TARGET = "loaded patches", "augmented patches", "target"


def steps_of_patches(
    trainer_class: type[nnUNetTrainer],
    plans: Mapping[str, Any],
    configuration: str,
    dataset_json: Mapping[str, Any],
    *,
    patches: int,
    seed: int = 0,
) -> list[Step]:
    """Fractions in patches as they are loaded, as they are augmented, and in the targets of each resolution.

    The trainer is built as nnU-Net builds it, on all cases, so that no split is made; its log goes to a temporary
    folder. Voxels are those of patches of the network's size, what the loader padded included (of what is loaded the
    middle, which the augmentation crops to); of a target, those that count in the loss.

    Args:
        trainer_class: The trainer.
        plans: The content of a plans file.
        configuration: Its configuration.
        dataset_json: What the trainer reads as `dataset.json`.
        patches: How many patches to draw, at least; whole batches of at most that many.
        seed: The same patches come with the same seed.

    Raises:
        InputError: The trainer refuses, or its patches cannot be drawn.
    """
    loaded, augmented = Tally(), Tally()
    levels: dict[tuple[int, ...], Tally] = {}
    results = os.environ.get("nnUNet_results")
    with tempfile.TemporaryDirectory() as folder, _as_in_training(folder, seed), _refusals(trainer_class):
        trainer = trainer_class(
            {**deepcopy(dict(plans)), "continue_training": False},
            configuration,
            "all",
            dict(dataset_json),
            torch.device("cpu"),
        )
        _find_previous_stage(trainer, Path(folder), results)
        trainer.initialize()
        trainer.batch_size = max(1, min(trainer.configuration_manager.batch_size, patches))
        train, _ = trainer.get_dataloaders()
        soft = trainer.layout.soft_channels if isinstance(trainer, SoftLabelTrainer) and trainer.soft else 0
        loader = train.data_loader
        patch = trainer.configuration_manager.patch_size
        loader.transforms = _watched(loader.transforms, patch, soft, loaded, augmented)
        read = _reader_of_targets(trainer)
        for _ in range(-(-patches // trainer.batch_size)):
            for target, mask in read(next(train)):
                tally = levels.setdefault(tuple(target.shape[2:]), Tally())
                for i, one in enumerate(target):
                    tally.add(one, None if mask is None else mask[i, 0])
    targets = [tally.step(f"{TARGET}, {' × '.join(map(str, size))}") for size, tally in levels.items()]
    return [loaded.step(LOADED), augmented.step(AUGMENTED), *targets]


@contextmanager
def _refusals(trainer_class: type[nnUNetTrainer]) -> Iterator[None]:
    """Silence nnU-Net's code; whatever it or a trainer refuses ends in an error of a line per problem."""
    said = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            yield
    except InputError:
        raise
    except SystemExit:  # this package's trainers say one line per problem and leave
        lines = [line for line in said.getvalue().splitlines() if line.startswith("nnunet-dml: ")]
        raise InputError(*(line.removeprefix("nnunet-dml: ") for line in lines)) from None
    except Exception as error:  # nnU-Net's code, and trainers of others
        expected, found = "a trainer that draws patches", soft_maps.first_line(error)
        raise InputError(problem(trainer_class.__name__, expected=expected, found=found)) from error


def _find_previous_stage(trainer: nnUNetTrainer, temporary: Path, results: str | None) -> None:
    """Let a cascade read the predictions of its previous stage from the true folder of results."""
    wanted = trainer.folder_with_segs_from_previous_stage
    if wanted is None:
        return
    there = Path(results or os.devnull) / Path(wanted).relative_to(temporary)
    if not there.is_dir():
        todo = "Train the previous stage first, all folds."
        raise InputError(
            problem(there, expected="predictions of the previous stage", found="none", todo=todo)
        )
    trainer.folder_with_segs_from_previous_stage = str(there)


def _watched(
    transforms: Callable[..., Any], patch: Sequence[int], soft: int, loaded: Tally, augmented: Tally
) -> Callable[..., Any]:
    """The loader's transforms, with the fractions counted before and after them.

    Args:
        transforms: The trainer's.
        patch: The size that they crop to; of what is loaded, the middle of this size is counted.
        soft: Number of soft channels, 0 with hard labels.
        loaded: Counts before them.
        augmented: Counts after them.
    """

    def watch(**data: Any) -> Any:
        before = data["segmentation"]
        starts = [(n - size) // 2 for n, size in zip(before.shape[1:], patch, strict=True)]
        middle = (slice(start, start + size) for start, size in zip(starts, patch, strict=True))
        index = (slice(None), *middle)
        before = before[index]
        if soft:
            loaded.add(before[1 : 1 + soft], one=soft_maps.SCALE)
        else:
            loaded.add(before[:1].float() % 1)
        out = transforms(**data)
        after = out["segmentation"][0] if isinstance(out["segmentation"], list) else out["segmentation"]
        augmented.add(after[:soft] if soft else after.float() % 1)
        return out

    return watch


class _Listener(nn.Module):
    """Stands in for the loss of one resolution and keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Keep target and mask."""
        self.heard.append((target, mask))
        return output.sum()


def _reader_of_targets(trainer: nnUNetTrainer) -> Callable[[dict], list[tuple[Tensor, Tensor | None]]]:
    """From a batch to the targets, and masks of valid voxels, that reach the loss; finest first."""
    listener = _Listener()
    for module in list(trainer.loss.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, CrossEntropyOverlapLoss):
                setattr(module, name, listener)
    scales = trainer._get_deep_supervision_scales() or [1]
    heads = trainer.label_manager.num_segmentation_heads

    def read(batch: dict) -> list[tuple[Tensor, Tensor | None]]:
        target = batch["target"]
        if not isinstance(trainer, SoftLabelTrainer):  # nnU-Net's own losses take labels
            return [(it.float() % 1, None) for it in (target if isinstance(target, list) else [target])]
        patch = np.array(batch["data"].shape[2:])
        sizes = [np.round(patch * np.array(scale)).astype(int) for scale in scales]
        outputs = [torch.zeros(len(batch["data"]), heads, *size) for size in sizes]
        listener.heard.clear()
        trainer.loss(outputs if trainer.enable_deep_supervision else outputs[0], target)
        return list(listener.heard)

    return read


@contextmanager
def _as_in_training(results: str, seed: int) -> Iterator[None]:
    """Set nnU-Net's variables for a loader in this process, and seed all generators; put everything back."""
    changes = {"nnUNet_results": results, "nnUNet_n_proc_DA": "0", "nnUNet_wandb_enabled": "0"}
    before = {name: os.environ.get(name) for name in changes}
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        os.environ.update(changes)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
