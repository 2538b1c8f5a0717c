"""Networks that plans may name, and whether nnU-Net and the options can deal with them."""

from __future__ import annotations

import inspect
import pydoc
from typing import TYPE_CHECKING

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_dml._checks import InputError, problem
from nnunet_dml.nnunet.segmentation_models import CLASS

if TYPE_CHECKING:
    from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer


def check_class(trainer: SoftLabelTrainer) -> None:
    """Check that nnU-Net can build the network that the plans name.

    Raises:
        InputError: Its class does not take `deep_supervision`, such as Primus, which has trainer classes instead.
    """
    if type(trainer).build_network_architecture is not nnUNetTrainer.build_network_architecture:
        return  # the trainer's own
    name = trainer.configuration_manager.network_arch_class_name
    loss = trainer.options.loss
    if name == CLASS and "deep_supervision" in loss.model_fields_set and loss.deep_supervision:
        where, expected = f"plans {trainer.plans_manager.plans_name}", "loss.deep_supervision=false"
        raise InputError(problem(where, expected=expected, found="true for a network of one output"))
    found = pydoc.locate(name)
    if not callable(found):  # nnU-Net searches further, and says what it finds
        return
    try:
        inspect.signature(found).bind_partial(deep_supervision=True)
    except TypeError:
        where = f"plans {trainer.plans_manager.plans_name}"
        expected = "a network that takes `deep_supervision`, as nnU-Net builds networks from plans"
        todo = (
            "nnU-Net has a trainer class of its own for such networks: derive from "
            f"{type(trainer).__name__} and from that, and set loss.deep_supervision=false."
        )
        raise InputError(problem(where, expected=expected, found=name, todo=todo)) from None


def unwrapped(network: nn.Module) -> nn.Module:
    """A network without what DDP and torch.compile put around it."""
    network = network.module if isinstance(network, DistributedDataParallel) else network
    inner: nn.Module = getattr(network, "_orig_mod", network)
    return inner


def has_decoder(network: nn.Module) -> bool:
    """Whether a network has the decoder by which nnU-Net switches deep supervision."""
    return hasattr(unwrapped(network), "decoder")


def check_deep_supervision(trainer: SoftLabelTrainer) -> None:
    """Check that a network has outputs in several resolutions.

    Raises:
        InputError: It has not.
    """
    if not has_decoder(trainer.network):
        where = f"plans {trainer.plans_manager.plans_name}"
        expected, found = "a network with deep supervision", f"{type(trainer.network).__name__} without"
        raise InputError(
            problem(where, expected=expected, found=found, todo="Set loss.deep_supervision=false.")
        )
