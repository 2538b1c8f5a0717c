"""Whether a teacher fits a student: what is refused, and why."""

from __future__ import annotations

import copy
import json

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.teacher import read_folds
from nnunet_dml.nnunet.teacher_checks import check_teacher
from tests.nnunet.teacher_helpers import (
    DATASET,
    LABELS,
    NAME,
    REGIONS,
    described,
    plans_of,
    student,
    write_teacher,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # nnU-Net's code warns
SPLITS = [{"train": ["c", "d"], "val": ["a", "b"]}, {"train": ["a", "b"], "val": ["c", "d"]}]


@pytest.fixture
def world(tmp_path, monkeypatch):
    for name in ("results", "preprocessed"):
        (tmp_path / name / DATASET).mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    (tmp_path / "preprocessed" / DATASET / "splits_final.json").write_text(json.dumps(SPLITS))
    return tmp_path


def model(world):
    return world / "results" / DATASET / NAME


def own(world):
    return world / "results" / DATASET / "nnUNetTrainerDML_KD__small__2d"


def check(world, folds=(0,), **more):
    check_teacher(read_folds(model(world), folds, "checkpoint_final.pth"), student(own(world), **more))


def refusals(world, folds=(0,), **more):
    with pytest.raises(InputError) as caught:
        check(world, folds, **more)
    return caught.value.problems


def changed(**changes):
    """Plans whose configuration, or the whole, has other values."""
    plans = copy.deepcopy(plans_of())
    for key, value in changes.items():
        inside = key in plans["configurations"]["2d"] or key == "previous_stage"
        (plans["configurations"]["2d"] if inside else plans)[key] = value
    return plans


def test_a_teacher_that_fits(world):
    write_teacher(model(world), validated=["a", "b"])
    check(world)
    smaller = changed(batch_size=7, patch_size=[4, 12], plans_name="small")
    check(world, plans=smaller)


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        ({"a": 1}, LABELS, 'expected a teacher of the student\'s labels {"background": 0, "rim": 1, "core": 2}, found {"background": 0, "a": 1}'),
        ({"rim": 2, "core": 1}, LABELS, "of the student's labels"),
        ({"rim": 1, "core": 2, "ignore": 3}, LABELS, "of the student's labels"),
        ({"core": 2, "whole": [1, 2]}, REGIONS, "of the student's labels"),
        (REGIONS, LABELS, "expected a teacher trained on labels, which exclude each other, as the student, found one of regions"),
        (LABELS, REGIONS, "expected a teacher trained on regions, which may overlap, as the student, found one of labels"),
    ],
)  # fmt: skip
def test_other_labels(world, theirs, ours, words):
    write_teacher(model(world), dataset_json=described({"background": 0, **theirs}))
    (line,) = refusals(world, dataset_json=described(ours))
    assert line.startswith(str(model(world)))
    assert words in line


@pytest.mark.parametrize("names", [["MR"], ["CT", "PET"]])
def test_other_channels(world, names):
    write_teacher(model(world), dataset_json={**described(), "channel_names": dict(enumerate(names))})
    lines = refusals(world)
    assert lines[0].endswith(
        f"expected a teacher of the channels CT, found {', '.join(names)}. Choose a teacher of the same images."
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spacing": [1.0, 2.0]}, "the student's spacing ([1.0, 1.0]) in the teacher's preprocessing, found [1.0, 2.0]"),
        ({"normalization_schemes": ["NoNormalization"]}, "the student's normalization_schemes"),
        ({"use_mask_for_norm": [True]}, "the student's use_mask_for_norm"),
        ({"resampling_fn_data": "no_resampling_hack"}, "the student's resampling_fn_data ("),
        ({"resampling_fn_data_kwargs": {"is_seg": False, "order": 1}}, "the student's resampling_fn_data_kwargs"),
        ({"transpose_forward": [0, 2, 1]}, "the student's transpose_forward"),
        ({"preprocessor_name": "Mine"}, "the student's preprocessor_name"),
    ],
)  # fmt: skip
def test_other_preprocessing(world, change, words):
    write_teacher(model(world), plans=changed(**change))
    (line,) = refusals(world)
    assert words in line
    assert line.endswith("Use the offline teacher (`nnunet-dml teach`), which does not need that.")


def test_intensities_of_the_data_set_matter_where_they_are_read(world):
    other = {"0": {"mean": 4.0, "std": 2.0}}
    write_teacher(model(world), plans=changed(foreground_intensity_properties_per_channel=other))
    check(world)
    ct = {"normalization_schemes": ["CTNormalization"]}
    write_teacher(model(world), plans=changed(foreground_intensity_properties_per_channel=other, **ct))
    (line,) = refusals(world, plans=changed(**ct))
    assert "the student's foreground intensities" in line
    almost = {"0": {"mean": 3.0 + 1e-9, "std": 2.0}}
    write_teacher(model(world), plans=changed(foreground_intensity_properties_per_channel=almost, **ct))
    check(world, plans=changed(**ct))


def test_another_number_of_dimensions(world):
    write_teacher(model(world), plans=plans_of(3))
    (line,) = refusals(world)
    assert "expected a teacher of 2D patches, found 3D patches" in line
    assert "offline teacher" in line


def test_a_patch_that_its_strides_do_not_divide(world):
    write_teacher(model(world))
    (line,) = refusals(world, plans=changed(patch_size=[8, 7]))
    assert "expected a student's patch that the teacher's strides [2, 2] divide, found [8, 7]" in line


def test_another_stage_of_the_cascade(world):
    write_teacher(model(world))
    (line,) = refusals(world, plans=changed(previous_stage="3d_lowres"))
    assert "whose previous stage is the student's (3d_lowres), found none" in line


def test_the_student_itself(world, monkeypatch):
    write_teacher(own(world))
    monkeypatch.setattr("tests.nnunet.test_teacher_checks.model", own)
    lines = refusals(world)
    assert (
        "expected another model than the student's own, found the folder that the student is written to"
        in lines[0]
    )


def test_teacher_and_student_swapped(world):
    taught = {"teacher": {"model": f"{DATASET}/{own(world).name}"}}
    write_teacher(model(world), plans={**plans_of(), "nnunet_dml": taught})
    (line,) = refusals(world)
    assert "teacher and student are swapped" in line
    taught = {"teacher": {"model": f"{DATASET}/another"}}
    write_teacher(model(world), plans={**plans_of(), "nnunet_dml": taught})
    check(world)


class TestLeakage:
    """No validation case of the student has been a training case of the teacher."""

    def test_the_splits_say_it(self, world):
        write_teacher(model(world), 1)
        (line,) = refusals(world, folds=[1])
        assert str(model(world) / "fold_1") in line
        assert "not trained on the validation cases of the student (fold 0 of Dataset950_Taught)" in line
        assert "found a, b among the training cases of its fold in splits_final.json" in line
        assert "teacher.folds=same" in line
        check(world, folds=[1], fold=1, held_back=["c", "d"])

    def test_its_own_validation_says_more_than_the_splits_of_today(self, world):
        write_teacher(model(world), validated=["a", "d"])
        (line,) = refusals(world)
        assert "found b not among the cases that it was validated on (summary.json)" in line

    def test_one_fold_of_several_is_enough(self, world):
        write_teacher(model(world), 0)
        write_teacher(model(world), 1)
        (line,) = refusals(world, folds=[0, 1])
        assert "fold_1" in line

    def test_all_cases(self, world):
        write_teacher(model(world), "all")
        (line,) = refusals(world, folds=["all"])
        assert "found one that was trained on all cases" in line
        check(world, folds=["all"], fold="all", held_back=["a", "b", "c", "d"])

    def test_a_student_that_holds_nothing_back_may_have_any(self, world):
        write_teacher(model(world), 0)
        write_teacher(model(world), 1)
        check(world, folds=[0, 1], fold="all")

    @pytest.mark.parametrize("splits", [True, False])
    def test_nobody_knows(self, world, splits):
        """What splits_final.json says today may not be what a model was trained with, say one from elsewhere."""
        if not splits:
            (world / "preprocessed" / DATASET / "splits_final.json").unlink()
        write_teacher(model(world), validated=None)
        (line,) = refusals(world)
        assert "found no validation/summary.json, which says which cases it held back. Validate" in line
        assert "--val" in line
        write_teacher(model(world), validated=["a", "b", "c"])
        check(world)

    def test_another_data_set(self, world):
        """Cases of the same name may be other images: another patient there may be the one held back here."""
        write_teacher(model(world), plans=changed(dataset_name="Dataset951_Other"))
        (line,) = refusals(world)
        assert f"expected a teacher of {DATASET}, found one of Dataset951_Other. Train a teacher on" in line

    def test_the_reader_of_the_images(self, world):
        write_teacher(model(world), plans=changed(image_reader_writer="NibabelIOWithReorient"))
        (line,) = refusals(world)
        assert "a teacher whose images were read as the student's are" in line
        assert "found NibabelIOWithReorient" in line

    @pytest.mark.parametrize("text", ["{", '{"train": []}', "[3]"])
    def test_damaged_splits(self, world, text):
        (world / "preprocessed" / DATASET / "splits_final.json").write_text(text)
        write_teacher(model(world))
        (line,) = refusals(world)
        assert "splits_final.json: expected " in line

    @pytest.mark.parametrize("text", ["{", "[]", '{"metric_per_case": [3]}'])
    def test_a_damaged_summary(self, world, text):
        write_teacher(model(world), validated=[])
        (model(world) / "fold_0" / "validation" / "summary.json").write_text(text)
        (line,) = refusals(world)
        assert "summary.json: expected" in line
