"""The second loader of semi-supervised training: nnU-Net's own, over the unlabelled cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import distributed as dist

from nnunet_dml._checks import InputError, problem
from nnunet_dml.nnunet import unlabelled

if TYPE_CHECKING:
    from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer

Loader: TypeAlias = SingleThreadedAugmenter | NonDetMultiThreadedAugmenter


def unlabelled_loader(
    trainer: SoftLabelTrainer,
    cases: Sequence[str],
    transforms: BasicTransform,
    patch_size: Any,
    batch_size: int,
) -> Loader:
    """Patches of unlabelled cases, each place equally likely.

    It has half as many worker processes as nnU-Net's loader of training patches, whose batches hold `batch_size`
    images, too, but each twice (two views), and keeps as many batches ahead as nnU-Net's validation loader.

    Args:
        trainer: Whose data set, patch size and device it is.
        cases: The unlabelled ones.
        transforms: What is done to a patch.
        patch_size: What is cut out for them, larger than the patch that they leave.
        batch_size: Of this process.
    """
    assert trainer.preprocessed_dataset_folder_base is not None
    configuration = trainer.configuration_manager
    folder = str(unlabelled.folder(trainer.preprocessed_dataset_folder_base, configuration.data_identifier))
    loader = nnUNetDataLoader(
        infer_dataset_class(folder)(folder, list(cases)),
        batch_size,
        patch_size,
        configuration.patch_size,
        trainer.label_manager,
        transforms=transforms,
    )
    loader.has_ignore = False  # with an ignore label nnU-Net looks for labelled voxels only
    processes = get_allowed_n_proc_DA()
    if processes == 0:
        return SingleThreadedAugmenter(loader, None)
    return NonDetMultiThreadedAugmenter(
        loader,
        None,
        num_processes=max(1, processes // 2),
        num_cached=max(3, processes // 4),
        seeds=None,
        pin_memory=trainer.device.type == "cuda",
        wait_time=0.002,
    )


def rank_batch_size(asked: int | None, own: int, where: str) -> int:
    """The number of unlabelled patches of this process.

    Args:
        asked: Of a step, over all ranks of a distributed training; None is as many as labelled ones.
        own: The number of labelled patches of this process.
        where: The plans, for the message.

    Raises:
        InputError: There are more ranks than patches.
    """
    if asked is None:
        return own
    ranks, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    if asked < ranks:
        expected = f"unlabelled.batch_size of at least {ranks}, a patch for each GPU"
        raise InputError(problem(where, expected=expected, found=str(asked)))
    return asked // ranks + (rank < asked % ranks)
