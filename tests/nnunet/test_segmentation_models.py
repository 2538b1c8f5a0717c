"""Networks of segmentation_models_pytorch under nnU-Net: any size, any channels, pretrained where that can be."""

from __future__ import annotations

import json

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional

from nnunet_dml._checks import InputError
from nnunet_dml.cli.main import main
from nnunet_dml.nnunet.segmentation_models import CLASS, SegmentationModel, arguments_of

OF_THE_PAPERS = [
    ("Unet", "resnet50"),
    ("Unet", "resnet18"),
    ("Unet", "efficientnet-b0"),
    ("Unet", "mobilenet_v2"),
    ("DeepLabV3Plus", "resnet18"),
    ("DeepLabV3", "resnet18"),
    ("PSPNet", "resnet18"),
    ("Segformer", "mit_b0"),
]


@pytest.mark.parametrize(("architecture", "encoder"), OF_THE_PAPERS)
@pytest.mark.parametrize(("channels", "size"), [(1, (37, 64)), (4, (32, 33))])
def test_the_papers_networks_take_any_size_and_any_channels(architecture, encoder, channels, size):
    network = SegmentationModel(channels, 3, architecture=architecture, encoder=encoder).eval()
    images = torch.randn(2, channels, *size)
    with torch.no_grad():
        logits = network(images)
        assert logits.shape == (2, 3, *size)
        padded = functional.pad(images, (0, -size[1] % 32, 0, -size[0] % 32))
        torch.testing.assert_close(logits, network.network(padded)[..., : size[0], : size[1]])


def test_images_are_resized_and_logits_brought_back():
    network = SegmentationModel(1, 2, architecture="Unet", encoder="resnet18", resize=64)
    seen = []
    network.network.forward = lambda images: seen.append(images.shape) or images.expand(-1, 2, -1, -1) * 3
    images = torch.arange(40.0).view(1, 1, 1, 40).expand(1, 1, 30, 40)
    logits = network(images)
    assert seen == [(1, 1, 64, 64)]
    assert logits.shape == (1, 2, 30, 40)
    # a ramp stays the same ramp, but for half a pixel at the ends
    torch.testing.assert_close(logits[0, 0, :, 1:-1], 3 * images[0, 0, :, 1:-1], atol=0.5, rtol=0)


def test_a_gradient_reaches_every_weight_at_full_size():
    network = SegmentationModel(1, 2, architecture="Unet", encoder="resnet18")
    network(torch.randn(2, 1, 40, 40)).square().mean().backward()
    assert all(it.grad is not None for it in network.parameters())


def test_deep_supervision_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"Unet has one output. Use a trainer of nnunet_dml"):
        SegmentationModel(1, 2, True, architecture="Unet", encoder="resnet18")


@pytest.mark.parametrize(
    ("architecture", "encoder"), [("Unet", "resnet18"), ("PSPNet", "resnet18"), ("Segformer", "mit_b0")]
)
def test_pretrained_weights_are_the_librarys(monkeypatch, architecture, encoder):
    network = SegmentationModel(1, 2, architecture=architecture, encoder=encoder)
    made = smp.create_model

    def without_fetching(name, *, encoder_weights, **more):
        assert encoder_weights == "imagenet"
        fetched.append(made(name, encoder_weights=None, **more))
        return fetched[-1]

    fetched = []
    monkeypatch.setattr(smp, "create_model", without_fetching)
    assert network.load_pretrained() == f"{encoder}: weights imagenet."
    for name, weight in network.network.encoder.state_dict().items():
        assert torch.equal(weight, fetched[0].encoder.state_dict()[name])


def test_without_a_network_random_weights_are_kept_and_that_is_said(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    network = SegmentationModel(1, 2, architecture="Unet", encoder="resnet18")
    before = {name: it.clone() for name, it in network.state_dict().items()}
    message = network.load_pretrained()
    assert message.startswith("resnet18: the weights imagenet could not be fetched (")
    assert "random ones are taken" in message
    assert all(torch.equal(it, before[name]) for name, it in network.state_dict().items())


def test_random_weights_are_fetched_from_nowhere(monkeypatch):
    network = SegmentationModel(1, 2, **arguments_of("smp:Unet:resnet18:none"))
    monkeypatch.setattr(smp, "create_model", None)
    assert network.load_pretrained() == "resnet18: random weights, as the plans have it."


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unet", "expected smp:ARCHITECTURE:ENCODER"),
        ("smp:Unet", "expected smp:ARCHITECTURE:ENCODER"),
        ("smp:Unet:resnet18:cityscapes", "expected smp:ARCHITECTURE:ENCODER"),
        ("smp:Unett:resnet18", "expected an architecture of unet, "),
        ("smp:Unet:resnet19", "expected an encoder such as resnet18"),
        ("smp:Linknet:mit_b0", "expected an encoder that goes with Linknet"),
        ("smp:DPT:tu-vit_base_patch16_224", "expected an encoder that goes with DPT at any size"),
    ],
)
def test_unknown_networks_are_refused(name, message):
    with pytest.raises(InputError) as caught:
        arguments_of(name)
    assert message in str(caught.value)
    assert "--network" in str(caught.value)


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A data set with a 2D and a 3D configuration, planned."""
    folder = tmp_path / "Dataset905_Planned"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    unet = {"network_class_name": "x", "arch_kwargs": {"features_per_stage": [32, 64]}}
    plans = {
        "plans_name": "nnUNetPlans",
        "original_median_shape_after_transp": [30, 128, 128],
        "configurations": {
            "2d": {"batch_size": 12, "patch_size": [128, 128], "architecture": unet},
            "3d_fullres": {"batch_size": 2, "patch_size": [32, 64, 64], "architecture": unet},
        },
    }
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    described = {"labels": {"background": 0, "a": 1}, "numTraining": 20, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def configure(*words):
    return main(["configure", "-d", "905", "-o", "other", *words])


def test_configure_writes_the_network_into_2d_configurations_only(planned):
    assert configure("--network", "smp:Unet:resnet18") == 0
    plans = json.loads((planned / "other.json").read_text())
    assert plans["configurations"]["2d"]["architecture"] == {
        "network_class_name": CLASS,
        "arch_kwargs": {"architecture": "Unet", "encoder": "resnet18", "pretrained": "imagenet"},
        "_kw_requires_import": [],
    }
    assert plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] == "x"
    assert plans["nnunet_dml"] == {}


@pytest.mark.parametrize(("architecture", "encoder"), OF_THE_PAPERS)
def test_configure_takes_every_network_of_the_papers(planned, architecture, encoder):
    assert configure("--network", f"smp:{architecture}:{encoder}", "--recipe", "paper", "-c", "2d") == 0
    made = json.loads((planned / "other.json").read_text())["configurations"]["2d"]["architecture"]
    assert (made["arch_kwargs"]["architecture"], made["arch_kwargs"]["encoder"]) == (architecture, encoder)


def test_the_papers_recipe(planned):
    assert (
        configure(
            "--network", "smp:Unet:resnet18", "--recipe", "paper", "-c", "2d", "--set", "training.epochs=7"
        )
        == 0
    )
    plans = json.loads((planned / "other.json").read_text())
    assert plans["nnunet_dml"]["training"] == {
        "epochs": 7,  # the user's
        "iterations": 60,  # 80 % of 20 × 30 slices in batches of 8
        "val_iterations": 15,
        "learning_rate": 0.01,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
    }
    assert plans["nnunet_dml"]["loss"] == {"weight_ce": 0.25, "weight_overlap": 0.75}
    assert plans["configurations"]["2d"]["batch_size"] == 8
    assert plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["resize"] == 256
    assert plans["configurations"]["3d_fullres"]["batch_size"] == 2


def test_an_epoch_of_the_recipe_is_one_pass_whatever_the_batch_size(planned):
    assert configure("--recipe", "paper", "--batch-size", "2") == 0
    training = json.loads((planned / "other.json").read_text())["nnunet_dml"]["training"]
    assert (training["iterations"], training["val_iterations"]) == (240, 60)  # of 20 × 30 slices


def test_the_recipes_weights_give_way_to_the_users(planned):
    assert configure("--recipe", "paper-60", "--set", "loss.weight_ce=1", "loss.variant=2") == 0
    loss = json.loads((planned / "other.json").read_text())["nnunet_dml"]["loss"]
    assert loss == {"weight_ce": 1.0, "weight_overlap": 0.75, "variant": 2}


def test_trainers_read_of_the_recipe_what_they_have_options_for(planned):
    from nnunet_dml.nnunet.trainers import nnUNetTrainerConfigured, nnUNetTrainerDML

    assert configure("--recipe", "paper") == 0
    plans = json.loads((planned / "other.json").read_text())
    taken = nnUNetTrainerDML._read_options(plans)
    assert (taken.loss.weight_ce, taken.loss.weight_overlap) == (0.25, 0.75)
    assert nnUNetTrainerConfigured._read_options(plans).training.epochs == 150
    plans["nnunet_dml"]["loss"]["weight_ce"] = 1.0  # the user's, which nothing would read
    with pytest.raises(InputError, match="reads the options training only, found loss"):
        nnUNetTrainerConfigured._read_options(plans)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "smp:Unet:resnet18", "-c", "3d_fullres"], "expected 2D configurations for --network"),
        (["--network", "smp:Unet:resnet18", "--scale-features", "0.5"], "expected no width beside it"),
        (["--network", "smp:Nothing:resnet18"], "expected an architecture of"),
        (["--network", "smp:Unet:resnet18", "--batch-size", "1"], "expected batches of at least 2"),
    ],
)
def test_networks_that_do_not_fit_are_refused(planned, capsys, words, message):
    assert configure(*words) == 2
    assert message in capsys.readouterr().err
    assert not (planned / "other.json").exists()


def test_the_recipe_wants_to_know_how_many_slices_there_are(planned, capsys):
    (planned / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1}}))
    assert configure("--recipe", "paper") == 2
    assert "--recipe paper: expected numTraining in dataset.json" in capsys.readouterr().err
