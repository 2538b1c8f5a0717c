"""Damage to checkpoints of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.robustness.damage.files import Damage


def checkpoint(**changes: Any) -> Damage:
    """Entries of a checkpoint replaced; None removes one."""

    def change(path: Path) -> None:
        content = torch.load(path, weights_only=False)
        for key, value in changes.items():
            if value is None:
                del content[key]
            else:
                content[key] = value(content[key]) if callable(value) else value
        torch.save(content, path)

    return change


def diverged(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: it * float("nan") for key, it in weights.items()}
