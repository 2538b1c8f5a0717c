"""Options in the plans: typed, checked, merged over the trainer's defaults."""

from __future__ import annotations

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.option_groups import Options
from nnunet_dml.nnunet.options import complete, listing, merge, parse_assignments, validate


def test_the_default_keeps_the_papers_ratio_at_nnunets_total():
    loss = Options().loss
    assert (loss.weight_ce, loss.weight_overlap) == (0.5, 1.5)
    assert loss.weight_overlap / loss.weight_ce == 3
    assert loss.weight_ce + loss.weight_overlap == 2


def test_assignments_are_typed_and_nested():
    parsed = parse_assignments(
        ["training.epochs=30", "loss.deep_supervision=false", "training.seed=none", "loss.gamma=2"]
    )
    assert parsed == {
        "training": {"epochs": 30, "seed": None},
        "loss": {"deep_supervision": False, "gamma": 2.0},
    }


def test_every_option_can_be_set():
    for name, _, default, _ in listing():
        group, key = name.split(".")
        assert parse_assignments([f"{name}={default}"]) == {group: {key: default}}
    assert parse_assignments(["loss.variant=2"]) == {"loss": {"variant": 2}}


def test_an_option_set_twice_is_refused():
    with pytest.raises(InputError, match=r"training\.epochs twice"):
        parse_assignments(["training.epochs=2", "training.epochs=3"])


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("loss.weigth_ce=1", "such as loss.weight_ce, "),
        ("epochs", "expected name=value"),
        ("training.epochs=0", "bad value 0 of training.epochs"),
        ("training.epochs=many", "bad value 'many' of training.epochs"),
        ("labels.source=stapel", "labels.source.*'uniform'"),
        ("loss.gamma=0.5", "greater than or equal to 1"),
        ("loss.variant=3", "loss.variant"),
        ("loss.weight_ce=nan", "loss.weight_ce"),
        ("loss.weight_ce=-1", "loss.weight_ce"),
        ("training.epochs=2.5", "bad value 2.5 of training.epochs"),
        ("loss=1", "expected name=value"),
        ("training.seed=4294967296", "bad value 4294967296 of training.seed"),
    ],
)
def test_bad_assignments_are_refused_with_the_valid_ones(assignment, words):
    with pytest.raises(InputError, match=words):
        parse_assignments([assignment])


def test_all_bad_assignments_are_listed_together():
    with pytest.raises(InputError) as error:
        parse_assignments(["a=1", "b=2", "training.epochs=3"])
    assert len(error.value.problems) == 2


@pytest.mark.parametrize(
    "groups",
    [
        {"loss": {"weight_ce": 0, "weight_overlap": 0}},
        {"loss": {"overlap": "ctl", "alpha": 0, "beta": 0}},
        {"los": {}},
        {"loss": {"gamma": 2}},
        {"loss": {"overlap": "sdl", "variant": 2}},
    ],
)
def test_options_that_cannot_train_are_refused(groups):
    with pytest.raises(InputError, match="plans p"):
        validate(groups, where="plans p")


@pytest.mark.parametrize(
    "groups",
    [
        {"training": {"iterations": 3e9}},
        {"training": {"epochs": "1" + 400 * "0"}},
        {"labels": {"neighbourhood": 2147483649.0}},
        {"teacher": {"folds": [10**400]}},
        {"teacher": {"bandwidth": 10**9 * 10}},
        {"loss": {"weight_ce": 1e300}},
        {"loss": {"class_weights": [1, "3e9"]}},
        {"loss": {"reduction": {"batch": 2**31}}},
    ],
)
def test_no_number_is_huge_whatever_it_is_written_as(groups):
    ((name, group),) = groups.items()
    (option,) = group
    with pytest.raises(InputError, match=rf"bad value .* of {name}\.{option}.*within ±2³¹\.") as error:
        validate(groups, where="plans p")
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("option", [{"class_weights": [True, 2]}, {"reduction": {"batch": True}}])
def test_truth_values_are_no_numbers_in_lists_either(option):
    (name,) = option
    with pytest.raises(InputError, match=rf"of loss\.{name}\. Input should not be true or false"):
        validate({"loss": option}, where="plans p")


def test_later_groups_win_and_inputs_stay():
    first = {"loss": {"overlap": "jml", "gamma": 2.0}}
    assert merge(first, {"loss": {"overlap": "dml"}}) == {"loss": {"overlap": "dml", "gamma": 2.0}}
    assert first == {"loss": {"overlap": "jml", "gamma": 2.0}}


def test_a_trainers_defaults_give_way_where_a_choice_leaves_them_unread():
    blurred = {"labels": {"smoothing": "boundary", "epsilon": 0.5, "neighbourhood": 3}}
    off = {"labels": {"smoothing": "off"}}
    assert complete(blurred, off) == off
    validate(complete(blurred, off), where="plans p")
    everywhere = complete(blurred, {"labels": {"smoothing": "all"}})
    assert everywhere == {"labels": {"smoothing": "all", "epsilon": 0.5}}
    assert complete(blurred, {}) == blurred
    with pytest.raises(InputError, match=r"labels\.epsilon is read with"):
        validate(complete(blurred, {"labels": {"smoothing": "off", "epsilon": 0.2}}), where="plans p")


def test_every_option_is_explained():
    rows = listing()
    assert {"labels.source", "loss.weight_ce", "training.epochs"} <= {name for name, *_ in rows}
    assert all(len(description) > 10 for *_, description in rows)


def test_combinations_that_no_trainer_can_use_are_refused_when_the_plans_are_written():
    with pytest.raises(InputError, match="both 0"):
        parse_assignments(["loss.alpha=0", "loss.beta=0"])
    with pytest.raises(InputError, match="both 0"):
        parse_assignments(["loss.weight_ce=0", "loss.weight_overlap=0"])


def test_an_option_that_the_overlap_does_not_read_is_refused():
    with pytest.raises(InputError, match=r"loss\.gamma is read with loss\.overlap=ctl only, found dml"):
        validate({"loss": {"gamma": 2}}, where="plans p")
    assert validate({"loss": {"gamma": 2, "overlap": "ctl"}}, where="plans p").loss.gamma == 2


def test_the_folds_of_a_teacher():
    for written, folds in (
        ("same", "same"),
        ("1", (1,)),
        ("[0, 1, 1]", (0, 1)),
        ("all", ("all",)),
        ('[0, "all"]', (0, "all")),
    ):
        assert parse_assignments([f"teacher.folds={written}"]) == {"teacher": {"folds": folds}}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("teacher.folds=[]", r"bad value \[\] of teacher.folds. Set same, or folds such as"),
        ("teacher.folds=-1", "teacher.folds"),
        ("teacher.folds=true", "teacher.folds"),
        ("teacher.bandwidth=0", "bad value 0 of teacher.bandwidth. Set a number above 0, or auto."),
        ("teacher.bandwidth=Infinity", "teacher.bandwidth"),
        ("teacher.temperature=-2", "bad value -2 of teacher.temperature"),
        ("teacher.keys=0", "teacher.keys"),
        ("teacher.neighbourhood=4", "set an odd number"),
        ("teacher.calibration=platt", "teacher.calibration"),
        ("teacher.ce_label=-1", "teacher.ce_label"),
    ],
)
def test_bad_options_of_a_teacher(assignment, words):
    with pytest.raises(InputError, match=words):
        parse_assignments([assignment])


def test_a_teacher_whose_terms_are_all_0():
    with pytest.raises(InputError, match="all 0; set one of them above 0"):
        parse_assignments(
            [f"teacher.{it}=0" for it in ("ce_label", "ce_teacher", "overlap_label", "overlap_teacher")]
        )


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (
            {"calibration": "temperature", "keys": 10},
            "teacher.keys is read with teacher.calibration=kde only",
        ),
        (
            {"calibration": "none", "voxels": "all"},
            "teacher.voxels is read with teacher.calibration=kde only",
        ),
        (
            {"voxels": "all", "neighbourhood": 5},
            "teacher.neighbourhood is read with teacher.voxels=boundary_error only",
        ),
        (
            {"temperature": 2.0},
            "teacher.temperature is read with teacher.calibration=temperature only, found kde",
        ),
        (
            {"active": "all", "threshold": 0.5},
            "teacher.threshold is read with teacher.active=prob or label or both only",
        ),
    ],
)
def test_options_of_a_teacher_that_nothing_reads(teacher, words):
    with pytest.raises(InputError, match=words):
        validate({"teacher": teacher}, where="plans p")
    validate({"teacher": {"calibration": None}}, where="plans p")  # as none is read
