"""A trained model's probabilities of whole images, in the space of the image file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_dml._checks import InputError, problem
from nnunet_dml.nnunet.raw_images import read_images
from nnunet_dml.nnunet.teacher import TeacherFold, build


class WholeImagePredictor:
    """Predicts with nnU-Net's own sliding window; the probabilities of several folds are averaged."""

    def __init__(self, folds: Sequence[TeacherFold], device: torch.device, *, mirroring: bool = True) -> None:
        """Build the networks.

        Args:
            folds: Of one model.
            device: Where to predict.
            mirroring: Whether to average over mirrored images, as nnU-Net does.

        Raises:
            InputError: The model starts from another one's predictions (a cascade), or its network cannot be built.
        """
        plans, configuration = folds[0].plans, folds[0].configuration
        if configuration.previous_stage_name is not None:
            expected = "a teacher that reads images only"
            found = f"one that starts from the predictions of {configuration.previous_stage_name} (a cascade)"
            todo = "Choose a model of another configuration."
            raise InputError(problem(folds[0].path.parent.parent, expected=expected, found=found, todo=todo))
        self.reader = plans.image_reader_writer_class()
        self._predictors = []
        for fold in folds:
            predictor = nnUNetPredictor(
                use_mirroring=mirroring,
                perform_everything_on_device=device.type == "cuda",
                device=device,
                allow_tqdm=False,
            )
            (network,) = build([fold], device).networks
            predictor.manual_initialization(
                network,
                plans,
                configuration,
                [network.state_dict()],
                fold.dataset_json,
                fold.content["trainer_name"],
                fold.content.get("inference_allowed_mirroring_axes"),
            )
            self._predictors.append(predictor)

    def __call__(self, images: Sequence[Path]) -> np.ndarray:
        """The probabilities of a case.

        Args:
            images: Its files, one per channel.

        Returns:
            (C, *spatial) float32 in the axis order of nnU-Net's reader; background first, or a channel per region.

        Raises:
            InputError: An image is missing or damaged.
        """
        array, properties = read_images(self.reader, images, case=images[0].name, todo="Restore the image.")
        total: np.ndarray | None = None
        for predictor in self._predictors:
            with redirect_stdout(io.StringIO()):  # nnU-Net says at each image what it does
                _, probs = _predict(predictor, array, properties)
            total = probs if total is None else total + probs
        assert total is not None
        return (total / len(self._predictors)).astype(np.float32, copy=False)


def _predict(predictor: nnUNetPredictor, array: np.ndarray, properties: dict[str, Any]) -> Any:
    return predictor.predict_single_npy_array(array, dict(properties), save_or_return_probabilities=True)
