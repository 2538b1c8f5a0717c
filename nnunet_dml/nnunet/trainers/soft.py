"""What all trainers on soft labels share: the way of the labels and the choice of the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from nnunetv2.utilities.helpers import dummy_context
from torch import autocast, nn

from nnunet_dml._checks import InputError
from nnunet_dml._folders import folder_if_there
from nnunet_dml.losses import CrossEntropyOverlapLoss, deep_supervision_weights
from nnunet_dml.nnunet import online, soft_maps, user_maps
from nnunet_dml.nnunet.dataset import RandomRaterDataset, SoftLabelDataset
from nnunet_dml.nnunet.option_checks import check_against_labels
from nnunet_dml.nnunet.options import KEY, merge
from nnunet_dml.nnunet.segmentation_models import CLASS
from nnunet_dml.nnunet.targets import Smoothing, TargetLayout, TargetLoss
from nnunet_dml.nnunet.trainers import networks
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
        """As upstream's; refuses options that do not fit the data set."""
        with clean_refusal():
            asked = self._read_options(plans).labels.source
            where = f"dataset.json of {plans.get('dataset_name')}"
            self.source = soft_maps.resolve_source(asked, dataset_json, where)
        self.source_was_chosen = asked != "auto"
        # what `auto` means is saved with the model, and a resumed training must mean the same
        plans[KEY] = merge(plans.get(KEY, {}), {"labels": {"source": self.source}})
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.configuration_manager.network_arch_class_name != CLASS:  # which has one output
            self.enable_deep_supervision = self.options.loss.deep_supervision
        self.layout = TargetLayout.of(self.label_manager)
        with clean_refusal():
            check_against_labels(
                self.options, self.source, self.layout, where=f"plans {self.plans_manager.plans_name}"
            )
        self.maps_folder: Path | None = None  # unset where only inference is done
        if self.preprocessed_dataset_folder_base is not None:
            self.maps_folder = soft_maps.folder(
                self.preprocessed_dataset_folder_base, self.configuration_manager.data_identifier, self.source
            )
        if self.soft:  # upstream's logger keeps and saves the series that it knows
            self.logger.local_logger.my_fantastic_logging.update({name: [] for name in online.SERIES})

    @property
    def soft(self) -> bool:
        """Whether the network is trained on maps of fractions instead of hard labels."""
        return self.source not in ("hard", "random")

    @property
    def single_target(self) -> bool:
        """Whether the loader yields targets in full resolution only, to be averaged down on the device."""
        return self.soft or self.options.labels.smoothing != "off"

    def initialize(self) -> None:
        """As upstream's; refuses a network that nnU-Net cannot build from plans."""
        with clean_refusal():
            networks.check_class(self)
        super().initialize()

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """As upstream's; a network without nnU-Net's decoder has nothing to switch."""
        if networks.has_decoder(self.network):
            super().set_deep_supervision_enabled(enabled)

    def _build_loss(self) -> nn.Module:
        loss = CrossEntropyOverlapLoss(**self._loss_arguments()).to(self.device)
        return TargetLoss(loss, self._output_weights(), self.layout, self._smoothing(), soft=self.soft)

    def _loss_arguments(self) -> dict[str, Any]:
        """What the options and the data set make of the arguments of `CrossEntropyOverlapLoss`."""
        arguments = self.options.loss.model_dump(exclude={"deep_supervision"})
        if arguments["reduction"] == "plans":
            arguments["reduction"] = "batch" if self.configuration_manager.batch_dice else "image"
        activation = "softmax" if self.layout.regions is None else "sigmoid"
        gather = self.is_ddp and arguments["overlap"] != "lovasz"  # whose sets are each rank's own
        return {**arguments, "activation": activation, "gather": gather}

    def _output_weights(self) -> tuple[float, ...] | None:
        """The weights of the outputs under deep supervision, None without; refuses a network that cannot do it."""
        if not self.enable_deep_supervision:
            return None
        with clean_refusal():
            networks.check_deep_supervision(self)
        # DDP without torch.compile complains about parameters that no loss reaches
        keep_last = self.is_ddp and not self._do_i_compile()
        return deep_supervision_weights(len(self._get_deep_supervision_scales()), keep_last=keep_last)

    def _smoothing(self) -> Smoothing:
        return Smoothing(self.options.labels, independent=self.layout.regions is not None)

    def on_train_start(self) -> None:
        """As upstream's; says which labels it trains on, and stops if maps are missing or stale."""
        message = "Training on nnU-Net's hard labels."
        with clean_refusal():
            if self.source != "hard":
                cases = sorted({case for keys in self.do_split() for case in keys})
                share = soft_maps.check_for_training(self, cases)
                message = (
                    f"Training on soft labels ({self.source}): {share:.2%} of the voxels are fractional."
                    if self.soft
                    else f"Training on one rater per patch: the raters differ in {share:.2%} of the voxels."
                )
            elif not self.source_was_chosen:
                self._check_that_nothing_is_soft()
        if self.options.labels.smoothing != "off":
            message += f" Smoothed in the loss: labels.smoothing={self.options.labels.smoothing}."
        self.print_to_log_file(message)
        super().on_train_start()

    def _check_that_nothing_is_soft(self) -> None:
        """Refuse hard labels that nobody asked for where others are there but dataset.json lists no raters."""
        raw, dataset = folder_if_there("nnUNet_raw"), self.plans_manager.dataset_name
        made = Path(f"{self.preprocessed_dataset_folder}_soft")
        signs = [
            *([(soft_maps.DEFAULT_FUSION, raw / dataset / "ratersTr")] if raw else []),
            *([("file", raw / dataset / user_maps.FOLDER)] if raw else []),
            *((source, made / source) for source in soft_maps.SOURCES),
        ]
        for source, folder in signs:
            if folder.is_dir() and any(folder.iterdir()):
                raise InputError(
                    f"{folder}: the data set has labels for labels.source={source}, but as dataset.json has no "
                    "`nnunet_dml` block that lists raters, labels.source=auto would mean hard labels. Choose one: "
                    f"nnunet-dml configure -d {dataset} -o NAME --set labels.source={source} (or hard)."
                )

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Upstream's data sets, with the soft maps behind the labels, or with a rater's labels in their place."""
        train, val = super().get_tr_and_val_datasets()
        if self.source == "hard":
            return train, val
        assert self.maps_folder is not None
        if self.source == "random":  # validated on the consensus
            return RandomRaterDataset(train, self.maps_folder), val
        return SoftLabelDataset(train, self.maps_folder), SoftLabelDataset(val, self.maps_folder)

    def get_training_transforms(
        self, patch_size: Any, rotation: Any, scales: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Upstream's augmentation; targets that may be soft are averaged down on the device, not in the loader."""
        scales = None if self.single_target else scales
        return self._packed(super().get_training_transforms(patch_size, rotation, scales, *args, **kwargs))

    def get_validation_transforms(self, scales: Any, *args: Any, **kwargs: Any) -> Any:
        """Upstream's, with soft targets."""
        scales = None if self.single_target else scales
        return self._packed(super().get_validation_transforms(scales, *args, **kwargs))

    def _packed(self, stock: Any) -> Any:
        scales = self._map_scales()
        return with_soft_labels(stock, scales) if scales else stock

    def _map_scales(self) -> list[int]:
        """The integer of 1.0 of every channel that rides behind the labels."""
        return [soft_maps.SCALE] * self.layout.soft_channels if self.soft else []

    def validation_step(self, batch: dict) -> dict:
        """As upstream's; on soft targets also the sums behind BDice and ECE."""
        if not self.soft:
            if self.single_target and self.enable_deep_supervision:
                # upstream measures the first of several targets, and it is the only one here
                batch = {**batch, "target": [batch["target"]]}
            return super().validation_step(batch)
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"].to(self.device, non_blocking=True)
        with autocast(self.device.type) if self.device.type == "cuda" else dummy_context():
            output = self.network(data)
            loss = self.loss(output, target)
        logits = output[0] if self.enable_deep_supervision else output
        statistics = online.batch_statistics(logits, target, self.layout)
        return {"loss": loss.detach().cpu().numpy(), **statistics}

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
