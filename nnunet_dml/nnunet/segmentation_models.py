"""Networks of segmentation_models_pytorch as nnU-Net architectures: named by the plans, built by any trainer."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_dml._checks import InputError, problem, some

CLASS = "nnunet_dml.nnunet.segmentation_models.SegmentationModel"  # as plans name it
PREFIX = "smp:"
INSTALL = "Install it: pip install 'nnunet-dml[networks]'."


class SegmentationModel(nn.Module):
    """A 2D network that takes images of any size: they are resized or padded for it, its logits brought back.

    Its weights are random until `load_pretrained`, so that predicting with trained weights fetches nothing.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        architecture: str,
        encoder: str,
        pretrained: str | None = "imagenet",
        resize: int | None = None,
    ) -> None:
        """As nnU-Net builds networks from plans.

        Args:
            input_channels: Of the images.
            num_classes: Outputs.
            deep_supervision: There is one output only.
            architecture: Name of the library's, such as `Unet`.
            encoder: Name of the library's, such as `resnet50`.
            pretrained: Weights of the encoder for `load_pretrained`; None for random ones.
            resize: Images are brought to resize × resize pixels bilinearly, and the logits back; None pads them to a
                multiple of 32.

        Raises:
            ValueError: With `deep_supervision`.
            ImportError: segmentation_models_pytorch is not installed.
        """
        super().__init__()
        if deep_supervision:
            raise ValueError(
                f"{architecture} has one output. Use a trainer of nnunet_dml, such as nnUNetTrainerConfigured for nnU-Net's "
                "own loss, or nnUNetTrainerNoDeepSupervision."
            )
        try:
            import segmentation_models_pytorch as smp
        except ImportError as error:
            raise ImportError(f"{architecture} needs segmentation_models_pytorch. {INSTALL}") from error
        self.network = smp.create_model(
            architecture,
            encoder_name=encoder,
            encoder_weights=None,
            in_channels=input_channels,
            classes=num_classes,
        )
        self.architecture, self.encoder, self.pretrained = architecture, encoder, pretrained
        self.input_channels = input_channels
        self.resize = resize
        self.decoder = SimpleNamespace(deep_supervision=False)  # by which nnU-Net's trainers switch it off

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images (B, channels, H, W)."""
        height, width = images.shape[2:]
        if self.resize is not None:
            resized = functional.interpolate(
                images, (self.resize, self.resize), mode="bilinear", align_corners=False
            )
            logits = self.network(resized)
            return functional.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        pad = (0, -width % 32, 0, -height % 32)
        # zero is the mean of a normalised image; other modes want no more padding than there is image
        return self.network(functional.pad(images, pad))[..., :height, :width]

    def load_pretrained(self) -> str:
        """Give the encoder its pretrained weights, where they can be had; a line that says what was done."""
        if self.pretrained is None:
            return f"{self.encoder}: random weights, as the plans have it."
        import segmentation_models_pytorch as smp

        try:
            donor: Any = smp.create_model(
                self.architecture,
                encoder_name=self.encoder,
                encoder_weights=self.pretrained,
                in_channels=self.input_channels,
            )
        except KeyError as error:
            return f"{self.encoder}: there are no weights {self.pretrained} ({error}); random ones are taken."
        except Exception as error:  # no network, no cache, a proxy: each library has its own
            reason = " ".join(str(error).split())[:160]
            return (
                f"{self.encoder}: the weights {self.pretrained} could not be fetched ({type(error).__name__}: {reason}); "
                "random ones are taken. Train once where there is a network, or copy the cache of huggingface_hub here."
            )
        own: Any = self.network.encoder
        own.load_state_dict(donor.encoder.state_dict())
        return f"{self.encoder}: weights {self.pretrained}."


def arguments_of(name: str, *, resize: int | None = None) -> dict[str, Any]:
    """The `arch_kwargs` of a network as a user names it.

    Args:
        name: `smp:ARCHITECTURE:ENCODER`, or `smp:ARCHITECTURE:ENCODER:none` for random weights.
        resize: As of `SegmentationModel`.

    Raises:
        InputError: There is no such network, or the library is absent.
    """
    parts = name.removeprefix(PREFIX).split(":")
    expected = "smp:ARCHITECTURE:ENCODER, such as smp:Unet:resnet50"
    if (
        not name.startswith(PREFIX)
        or len(parts) not in (2, 3)
        or parts[2:] not in ([], ["none"], ["imagenet"])
    ):
        raise InputError(problem("--network", expected=expected, found=name))
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        where, found = f"--network {name}", "it not installed"
        raise InputError(
            problem(where, expected="segmentation_models_pytorch", found=found, todo=INSTALL)
        ) from None
    architectures = {it.lower(): it for it in smp.MODEL_ARCHITECTURES_MAPPING}
    architecture, encoder = parts[:2]
    problems = []
    if architecture.lower() not in architectures:
        expected = f"an architecture of {', '.join(architectures)}"
        problems.append(problem(f"--network {name}", expected=expected, found=architecture))
    known = smp.encoders.get_encoder_names()
    if encoder not in known and not encoder.startswith("tu-"):
        near = difflib.get_close_matches(encoder, known, 3) or known
        expected = f"an encoder such as {some(near, 3)}, or tu-NAME of timm"
        problems.append(problem(f"--network {name}", expected=expected, found=encoder))
    if problems:
        raise InputError(*problems)
    pretrained = None if parts[2:] == ["none"] else "imagenet"
    made = {"architecture": architecture, "encoder": encoder, "pretrained": pretrained}
    arguments = made if resize is None else {**made, "resize": resize}
    try:
        _probe("meta", arguments)  # in no time; but some encoders read values while they are built (MiT)
    except Exception:
        try:
            _probe("cpu", arguments)
        except Exception as error:  # some encoders don't go with some architectures
            found = " ".join(str(error).split())[:200]
            expected = f"an encoder that goes with {architecture} at any size"
            raise InputError(problem(f"--network {name}", expected=expected, found=found)) from None
    return arguments


def _probe(device: str, arguments: Mapping[str, Any]) -> None:
    """Build a network and have it compute on images whose size is no power of 2."""
    with torch.device(device), torch.no_grad():
        SegmentationModel(1, 2, **arguments)(torch.zeros(2, 1, 96, 64))
