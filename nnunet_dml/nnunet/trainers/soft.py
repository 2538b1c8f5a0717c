"""What all trainers on soft labels share: the way of the labels and the choice of the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.utilities.helpers import dummy_context
from torch import autocast, nn

from nnunet_dml._checks import InputError
from nnunet_dml._folders import folder_if_there
from nnunet_dml.losses import CrossEntropyOverlapLoss, deep_supervision_weights
from nnunet_dml.nnunet import online, soft_maps
from nnunet_dml.nnunet.dataset import SoftLabelDataset
from nnunet_dml.nnunet.options import KEY, merge
from nnunet_dml.nnunet.targets import HardTargetLoss, SoftTargetLoss
from nnunet_dml.nnunet.trainers.configured import clean_refusal, nnUNetTrainerConfigured
from nnunet_dml.nnunet.transforms import with_soft_labels


class SoftLabelTrainer(nnUNetTrainerConfigured):
    """Cross-entropy and an overlap loss that is right on soft labels, trained on a fusion of the raters.

    The labels and the loss are options of the plans; a subclass sets other defaults in `default_options`.
    """

    option_groups: ClassVar[tuple[str, ...]] = ("labels", "loss", "training")

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (upstream's signature, read back by name)
    ):
        """As upstream's; refuses what cannot be trained on soft labels."""
        with clean_refusal():
            asked = self._read_options(plans).labels.source
        self.source = soft_maps.resolve_source(asked, dataset_json)
        self.source_was_chosen = asked != "auto"
        # what `auto` means is saved with the model, and a resumed training must mean the same
        plans[KEY] = merge(plans.get(KEY, {}), {"labels": {"source": self.source}})
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = self.options.loss.deep_supervision
        self.soft_folder: Path | None = None  # unset where only inference is done
        if self.preprocessed_dataset_folder_base is not None:
            self.soft_folder = soft_maps.folder(
                self.preprocessed_dataset_folder_base, self.configuration_manager.data_identifier, self.source
            )
        for reason, refused in (
            ("region-based labels", self.label_manager.has_regions),
            ("an ignore label on soft labels; use labels.source=hard", self.soft and self.label_manager.has_ignore_label),
            ("a cascade on soft labels; use labels.source=hard for both of its stages", self.soft and self.is_cascaded),
        ):  # fmt: skip
            if refused:
                raise NotImplementedError(f"{type(self).__name__} does not support {reason} yet.")
        if self.soft:  # upstream's logger keeps and saves the series that it knows
            self.logger.local_logger.my_fantastic_logging.update({name: [] for name in online.SERIES})

    @property
    def soft(self) -> bool:
        """Whether the network is trained on soft maps instead of nnU-Net's labels."""
        return self.source != "hard"

    @property
    def num_foreground(self) -> int:
        """Number of foreground classes."""
        return len(self.label_manager.foreground_labels)

    def _build_loss(self) -> nn.Module:
        options = self.options.loss
        reduction = options.reduction
        if reduction == "plans":
            reduction = "batch" if self.configuration_manager.batch_dice else "image"
        loss = CrossEntropyOverlapLoss(
            options.overlap,
            weight_ce=options.weight_ce,
            weight_overlap=options.weight_overlap,
            background=options.background,
            variant=options.variant,
            alpha=options.alpha,
            beta=options.beta,
            gamma=options.gamma,
            reduction=reduction,
            smooth=options.smooth,
            gather=self.is_ddp and reduction == "batch",
        )
        weights = None
        if self.enable_deep_supervision:
            # DDP without torch.compile complains about parameters that no loss reaches
            keep_last = self.is_ddp and not self._do_i_compile()
            weights = deep_supervision_weights(len(self._get_deep_supervision_scales()), keep_last=keep_last)
        if self.soft:
            return SoftTargetLoss(loss, weights)
        return HardTargetLoss(loss, weights, self.label_manager.ignore_label)

    def on_train_start(self) -> None:
        """As upstream's; says which labels it trains on, and stops if soft maps are missing or stale."""
        message = "Training on nnU-Net's hard labels."
        with clean_refusal():
            if self.soft:
                cases = sorted({case for keys in self.do_split() for case in keys})
                share = soft_maps.check_for_training(self, cases)
                message = (
                    f"Training on soft labels ({self.source}): {share:.2%} of the voxels are fractional."
                )
            elif not self.source_was_chosen:
                self._check_that_there_are_no_raters()
        self.print_to_log_file(message)
        super().on_train_start()

    def _check_that_there_are_no_raters(self) -> None:
        """Refuse hard labels that nobody asked for where raters are there but dataset.json does not list them."""
        raw, dataset = folder_if_there("nnUNet_raw"), self.plans_manager.dataset_name
        signs = [
            Path(f"{self.preprocessed_dataset_folder}_soft"),
            *([raw / dataset / "ratersTr"] if raw else []),
        ]
        for folder in signs:
            if folder.is_dir() and any(folder.iterdir()):
                raise InputError(
                    f"{folder}: the data set has raters, but dataset.json has no `nnunet_dml` block that lists them, so "
                    "labels.source=auto would mean hard labels. Choose one: nnunet-dml configure -d "
                    f"{dataset} -o NAME --set labels.source=weighted (or hard)."
                )

    def get_tr_and_val_datasets(
        self,
    ) -> tuple[nnUNetBaseDataset | SoftLabelDataset, nnUNetBaseDataset | SoftLabelDataset]:
        """Upstream's data sets, with the soft maps behind the labels."""
        train, val = super().get_tr_and_val_datasets()
        if not self.soft:
            return train, val
        assert self.soft_folder is not None
        return SoftLabelDataset(train, self.soft_folder), SoftLabelDataset(val, self.soft_folder)

    def get_training_transforms(
        self, patch_size: Any, rotation: Any, scales: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Upstream's augmentation; soft targets are averaged down on the device instead of in the loader."""
        stock = super().get_training_transforms(
            patch_size, rotation, None if self.soft else scales, *args, **kwargs
        )
        return with_soft_labels(stock, self.num_foreground, soft_maps.SCALE) if self.soft else stock

    def get_validation_transforms(self, scales: Any, *args: Any, **kwargs: Any) -> Any:
        """Upstream's, with soft targets."""
        stock = super().get_validation_transforms(None if self.soft else scales, *args, **kwargs)
        return with_soft_labels(stock, self.num_foreground, soft_maps.SCALE) if self.soft else stock

    def validation_step(self, batch: dict) -> dict:
        """As upstream's; on soft targets also the sums behind BDice and ECE."""
        if not self.soft:
            return super().validation_step(batch)
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"].to(self.device, non_blocking=True)
        with autocast(self.device.type) if self.device.type == "cuda" else dummy_context():
            output = self.network(data)
            loss = self.loss(output, target)
        logits = output[0] if self.enable_deep_supervision else output
        return {"loss": loss.detach().cpu().numpy(), **online.batch_statistics(logits, target)}

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """As upstream's; on soft targets also logs BDice and ECE."""
        super().on_validation_epoch_end(val_outputs)
        if self.soft:
            for name, value in zip(online.SERIES, online.epoch_figures(val_outputs), strict=True):
                self.logger.log(name, value, self.current_epoch)

    def on_epoch_end(self) -> None:
        """As upstream's; on soft targets also prints BDice and ECE."""
        if self.soft:
            bdice, ece = (self.logger.get_value(name, step=-1) for name in online.SERIES)
            self.print_to_log_file("BDice", [round(value, 4) for value in bdice])
            self.print_to_log_file("ECE", round(ece, 4))
        super().on_epoch_end()
