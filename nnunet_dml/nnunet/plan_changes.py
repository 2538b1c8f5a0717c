"""What `nnunet-dml configure` changes in plans beside the options: batch size, width, network, the paper's recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError, problem

# Wang et al., Dice Semimetric Losses (MICCAI 2023), section 3.2: epochs and the side that images are resized to; the
# batch size; the weights of the loss, which sum to 1 where nnU-Net's sum to 2
RECIPES = {"paper": (150, 256), "paper-60": (60, 512)}
BATCH = 8
LOSS = {"weight_ce": 0.25, "weight_overlap": 0.75}
_MOST = 100_000  # patches or channels
_TRAINING_SHARE = 0.8  # of the cases, with five folds


@dataclass(frozen=True)
class Changes:
    """What is asked for; None leaves it as it is."""

    batch_size: int | None = None
    scale_features: float | None = None
    """Factor on the channels of every stage (at least 1 channel is left)."""
    features: Sequence[int] | None = None
    """Channels of every stage."""
    network: str | None = None
    """`smp:ARCHITECTURE:ENCODER`."""
    recipe: str | None = None
    """One of `RECIPES`."""

    def check(self, configurations: Sequence[str] | None) -> None:
        """Refuse numbers out of range, what excludes each other, and a choice of configurations with nothing to change.

        Raises:
            InputError: With the argument's name.
        """
        if self.batch_size is not None and not 1 <= self.batch_size <= _MOST:
            found = str(self.batch_size)
            raise InputError(problem("--batch-size", expected=f"at least 1, at most {_MOST}", found=found))
        if self.scale_features is not None and not 0.01 <= self.scale_features <= 16:
            found = f"{self.scale_features:g}"
            raise InputError(problem("--scale-features", expected="a factor from 0.01 to 16", found=found))
        if self.features is not None and not all(1 <= it <= _MOST for it in self.features or (0,)):
            found = " ".join(map(str, self.features)) or "none"
            expected = f"at least 1 channel per stage, at most {_MOST}"
            raise InputError(problem("--features", expected=expected, found=found))
        if self.network is not None and (self.features or self.scale_features):
            found = "--features" if self.features else "--scale-features"
            expected, todo = "no width beside it", "Choose another encoder."
            raise InputError(problem(f"--network {self.network}", expected=expected, found=found, todo=todo))
        if self.recipe is not None and self.recipe not in RECIPES:
            raise InputError(problem("--recipe", expected=f"one of {', '.join(RECIPES)}", found=self.recipe))
        if configurations and self == Changes():
            expected = "--batch-size, --scale-features, --features, --network or --recipe beside it"
            todo = "Leave -c out: the options of --set hold for all configurations."
            raise InputError(problem("-c", expected=expected, found="none of them", todo=todo))

    def options(self, plans: dict[str, Any], dataset_json: dict[str, Any]) -> dict[str, Any]:
        """The options that go with a recipe; those of the user come after them.

        An epoch is a pass over the training slices, as the paper's, and one over the validation slices.

        Raises:
            InputError: The number of slices is not known.
        """
        found: dict[str, Any] = {}
        if self.recipe is not None:
            cases, shape = (
                dataset_json.get("numTraining"),
                plans.get("original_median_shape_after_transp"),
            )
            if not cases or not shape:
                where, expected = (
                    f"--recipe {self.recipe}",
                    "numTraining in dataset.json, and nnU-Net's plans",
                )
                raise InputError(problem(where, expected=expected, found="none"))
            batches = cases * shape[0] / (self.batch_size or BATCH)
            found["loss"] = dict(LOSS)
            found["training"] = {
                "epochs": RECIPES[self.recipe][0],
                "iterations": max(1, round(_TRAINING_SHARE * batches)),
                "val_iterations": max(1, round((1 - _TRAINING_SHARE) * batches)),
                "learning_rate": 0.01,
                "momentum": 0.9,
                "nesterov": False,
                "weight_decay": 5e-4,
            }
        return found

    def apply(
        self, available: dict[str, dict[str, Any]], chosen: Sequence[str] | None, source_file: Path
    ) -> None:
        """Change configurations in place; without a choice, what a configuration inherits is left alone.

        Raises:
            InputError: A configuration has nothing to change, or a network does not fit it.
        """
        batch_size = self.batch_size
        architecture = "--network" if self.network else "--features" if self.features else "--scale-features"
        names = list(dict.fromkeys(chosen or available))
        for option, key in (
            ("--batch-size", "batch_size" if batch_size is not None else None),
            (architecture, "architecture" if self.features or self.scale_features or self.network else None),
        ):
            if key is None:
                continue
            without = [name for name in names if key not in available[name]]
            if without and (chosen or without == names):
                raise InputError(
                    *(_nothing_to_change(source_file, it, available[it], option, key) for it in without)
                )
        networks = self._networks(available, chosen, names, source_file)
        for name in names:
            configuration = available[name]
            if batch_size is not None and "batch_size" in configuration:
                configuration["batch_size"] = batch_size
            elif self.recipe is not None and len(configuration.get("patch_size", [])) == 2:
                configuration["batch_size"] = BATCH
            if name in networks and configuration.get("batch_size", 2) < 2:
                expected = f"batches of at least 2 for --network {self.network}, which normalises over them"
                raise InputError(problem("--batch-size", expected=expected, found="1"))
            if name in networks:
                configuration["architecture"] = networks[name]
            elif (self.features or self.scale_features) and "architecture" in configuration:
                _change_width(
                    configuration["architecture"], self.scale_features, self.features, name, source_file
                )

    def _networks(
        self,
        available: dict[str, dict[str, Any]],
        chosen: Sequence[str] | None,
        names: Sequence[str],
        source_file: Path,
    ) -> dict[str, dict[str, Any]]:
        """The architecture of each configuration that gets another network: those in 2D."""
        if self.network is None:
            return {}
        from nnunet_dml.nnunet.segmentation_models import CLASS, arguments_of  # slow: torch

        sizes = {
            name: available[name].get("patch_size", []) for name in names if "architecture" in available[name]
        }
        flat = [name for name, size in sizes.items() if len(size) == 2]
        if not flat or (chosen and len(flat) < len(sizes)):
            others = ", ".join(
                f"{name} with {len(size)}D patches" for name, size in sizes.items() if name not in flat
            )
            expected = f"2D configurations for --network {self.network}"
            raise InputError(problem(source_file, expected=expected, found=others, todo="Choose 2d with -c."))
        arguments = arguments_of(self.network, resize=RECIPES[self.recipe][1] if self.recipe else None)
        return {
            name: {"network_class_name": CLASS, "arch_kwargs": arguments, "_kw_requires_import": []}
            for name in flat
        }


def _nothing_to_change(
    source_file: Path, name: str, configuration: dict[str, Any], option: str, key: str
) -> str:
    """Why an option has no effect on a configuration."""
    parent = configuration.get("inherits_from")
    found = f"none of its own; it inherits from {parent}" if parent else "none"
    todo = f"Choose {parent} with -c." if parent else "Plan again with nnUNetv2_plan_experiment."
    return problem(source_file, expected=f"{key!r} in {name} for {option}", found=found, todo=todo)


def _change_width(
    architecture: Any,
    scale_features: float | None,
    features: Sequence[int] | None,
    name: str,
    source_file: Path,
) -> None:
    try:
        arguments = architecture["arch_kwargs"]
        stages = [int(channels) for channels in arguments["features_per_stage"]]
    except (KeyError, TypeError, ValueError):
        expected = f"'features_per_stage', a list of channels, in the architecture of {name}"
        todo = "Only such networks can be scaled."
        raise InputError(problem(source_file, expected=expected, found="none", todo=todo)) from None
    if features is None:
        assert scale_features is not None
        features = [max(1, round(channels * scale_features)) for channels in stages]
    if len(features) != len(stages):
        expected, found = f"{len(stages)} channels for {name}, as {stages}", str(list(features))
        raise InputError(problem("--features", expected=expected, found=found))
    arguments["features_per_stage"] = list(features)
