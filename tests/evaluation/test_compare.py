"""Paired differences of evaluations and their statistics."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import bootstrap

from nnunet_dml._checks import InputError
from nnunet_dml.evaluation.bootstrap import percentile_interval, weighted_means
from nnunet_dml.evaluation.compare import compare, holm, signed_rank_p
from nnunet_dml.evaluation.folder import read_evaluation, read_evaluations
from nnunet_dml.evaluation.measures import MEASURES
from tests.report.evaluation_world import change_records, write_evaluation


def set_values(folder, name, values):
    """Give a measure the values of a dict by case; None is undefined."""

    def change(content):
        if content["case"] in values:
            for place in (content["overall"], *content["per_class"].values()):
                if name in place:
                    place[name] = values[content["case"]]

    change_records(folder, change)


def pair(tmp_path, measure, first, second, **options):
    """Two evaluations whose cases have these values of a measure, compared."""
    for name, values in (("first", first), ("second", second)):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        folder = write_evaluation(tmp_path / name, cases=len(values))
        set_values(folder, measure, {f"case{k:03d}": value for k, value in enumerate(values)})
    models = read_evaluations([tmp_path / "first", tmp_path / "second"])
    result = compare([tuple(models)], measures=[measure], resamples=200, **options)
    return result, result.rows[0]


def test_a_difference_by_hand(tmp_path):
    _, row = pair(tmp_path, "dice", [0.5, 0.6, 0.7, 0.8], [0.6, 0.6, 0.6, 0.9])
    assert (row.wins, row.ties, row.losses, row.cases, row.undefined) == (2, 1, 1, 4, 0)
    np.testing.assert_allclose([row.baseline_mean, row.model_mean, row.difference], [0.65, 0.675, 0.025])
    assert row.low < row.difference < row.high
    assert row.label == "lesion"
    # +0.1, −0.1, +0.1: of the signs' 8 patterns only +++ and −−− are further out than 4 against 2
    assert row.p > 0.5
    assert row.p_holm == row.p


def test_lower_is_better_for_calibration_and_nearer_to_zero_for_volume_bias(tmp_path):
    _, row = pair(tmp_path, "ece", [0.1, 0.2, 0.3], [0.05, 0.25, 0.3])
    assert (row.wins, row.ties, row.losses) == (1, 1, 1)
    assert row.label == ""
    _, row = pair(tmp_path, "volume_bias", [-0.3, 0.1, 0.2], [0.1, -0.1, 0.3])
    assert (row.wins, row.ties, row.losses) == (1, 1, 1)
    np.testing.assert_allclose([row.baseline_mean, row.model_mean], [0.2, 0.5 / 3])


def test_undefined_pairs_are_left_out_and_counted(tmp_path):
    result, row = pair(tmp_path, "dice", [0.5, None, 0.7, 0.8], [0.6, 0.9, None, 0.9])
    assert (row.cases, row.undefined) == (2, 2)
    np.testing.assert_allclose(row.difference, 0.1)
    assert any("2 pairs" in note for note in result.notes)
    result, row = pair(tmp_path, "dice", [0.5, None, 0.7], [None, 0.9, 0.7])
    assert (row.cases, row.undefined) == (1, 2)
    assert np.isnan([row.p, row.p_holm, row.low, row.high]).all()
    assert any("no test" in note for note in result.notes)


def test_the_mean_over_classes_is_over_those_that_both_have(tmp_path):
    for name in ("a", "b"):
        write_evaluation(tmp_path / name, cases=2, classes=("core", "rim"))

    def change(content, core, rim):
        content["per_class"]["core"]["dice"], content["per_class"]["rim"]["dice"] = core, rim

    change_records(tmp_path / "a", lambda it: change(it, 0.5, None))
    change_records(tmp_path / "b", lambda it: change(it, 0.7, 0.1))
    pairs = [tuple(read_evaluations([tmp_path / "a", tmp_path / "b"]))]
    (row,) = compare(pairs, measures=["dice"], resamples=50).rows
    assert row.label == "mean"
    np.testing.assert_allclose([row.baseline_mean, row.model_mean, row.difference], [0.5, 0.7, 0.2])
    rows = compare(pairs, measures=["dice", "brier"], per_class=True, resamples=50).rows
    assert [row.label for row in rows] == ["core", "rim", ""]
    assert [row.cases for row in rows] == [2, 0, 2]


def test_cases_that_not_all_have_are_listed_and_left_out(tmp_path):
    write_evaluation(tmp_path / "a", names=["x", "y", "z"])
    write_evaluation(tmp_path / "b", names=["y", "z", "w"], seed=0)
    change_records(tmp_path / "b", lambda it: it["per_class"]["lesion"].pop("reference_ml"))
    result = compare([tuple(read_evaluations([tmp_path / "a", tmp_path / "b"]))], resamples=50)
    assert result.cases == ["y", "z"]
    assert result.left_out == {"a": ["x"], "b": ["w"]}
    assert any("x" in note and "a" in note for note in result.notes)
    assert any("2 cases are too few for a test: no p can be below 0.5" in note for note in result.notes)


def test_too_few_common_cases(tmp_path):
    write_evaluation(tmp_path / "a", names=["x", "y"])
    write_evaluation(tmp_path / "b", names=["x", "z"])
    models = read_evaluations([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(InputError, match=r"expected at least two cases .* found 1 of 2 in a, 2 in b"):
        compare([tuple(models)])


def test_holm_against_the_procedure_step_by_step():
    rng = np.random.default_rng(0)
    for _ in range(20):
        p = rng.uniform(size=7) ** 3
        for alpha in (0.01, 0.05, 0.2):
            rejected = np.zeros(7, bool)
            for i, k in enumerate(np.argsort(p)):
                if p[k] > alpha / (7 - i):
                    break
                rejected[k] = True
            np.testing.assert_array_equal(holm(p) <= alpha, rejected)
    np.testing.assert_allclose(holm(np.array([0.5, 0.6])), [1, 1])


def test_signed_rank_by_counting_signs():
    values = np.array([0.1, -0.3, 0.45, 0.7, 0.9])
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    low = min(ranks[values > 0].sum(), ranks[values < 0].sum())
    patterns = np.array(np.meshgrid(*[[0, 1]] * 5)).reshape(5, -1).T @ ranks
    expected = min(1, 2 * (patterns <= low).mean())
    np.testing.assert_allclose(signed_rank_p(values), expected)
    np.testing.assert_allclose(signed_rank_p(np.append(values, 1e-12)), expected)  # a tie is dropped
    assert signed_rank_p(np.zeros(5)) == 1


def test_intervals_are_those_of_scipy():
    values = np.random.default_rng(1).normal(size=30)
    own = percentile_interval(lambda weights: weights @ values / 30, 30, resamples=20_000)
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    np.testing.assert_allclose(own, theirs, atol=0.01)
    again = percentile_interval(lambda weights: weights @ values / 30, 30, resamples=20_000)
    np.testing.assert_array_equal(own, again)


def test_means_of_resamples_without_undefined_values():
    values = np.array([[1.0, np.nan], [2.0, 4.0], [3.0, np.nan]])
    weights = np.array([[1.0, 1, 1], [2, 0, 1]])
    np.testing.assert_allclose(weighted_means(weights, values), [[2, 4], [5 / 3, np.nan]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "Dataset902_Other"}, "the data set Dataset901_Phantom, found Dataset902_Other"),
        ({"classes": ("rim",)}, "expected the classes lesion, found rim"),
        ({"options": {"bins": 15, "thresholds": [0.5]}}, "the option bins 10, found 15"),
        ({"raters": {"soft_reference": "softlabelsTr"}}, "the soft reference the raters' uniform mean"),
    ],
)
def test_evaluations_of_other_kinds_are_refused(tmp_path, change, message):
    write_evaluation(tmp_path / "a")
    write_evaluation(tmp_path / "b", **change)
    with pytest.raises(InputError) as error:
        read_evaluations([tmp_path / "a", tmp_path / "b"])
    assert message in str(error.value)


def test_an_option_that_only_adds_figures_may_differ(tmp_path):
    options = {"bins": 10, "thresholds": [0.5]}
    folders = [write_evaluation(tmp_path / "a", options=options)]
    folders.append(write_evaluation(tmp_path / "b", options={**options, "surfaces": True}))
    assert len(read_evaluations(folders)) == 2


def test_another_reference_is_seen_by_its_volume(tmp_path):
    write_evaluation(tmp_path / "a")
    write_evaluation(tmp_path / "b", seed=1)
    with pytest.raises(
        InputError, match=r"b: expected the reference of .*a, .* ml of lesion in case000, found"
    ):
        read_evaluations([tmp_path / "a", tmp_path / "b"])


def test_folders_that_are_no_evaluations(tmp_path):
    a = write_evaluation(tmp_path / "a")
    with pytest.raises(InputError, match="expected each evaluation once, found it twice"):
        read_evaluations([a, tmp_path / "x" / ".." / "a"])
    with pytest.raises(InputError, match="expected a folder of an evaluation, found none"):
        read_evaluation(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"summary\.json: expected a file, found none"):
        read_evaluation(tmp_path / "empty")
    write_evaluation(tmp_path / "mixed", classes=("rim",))
    write_evaluation(tmp_path / "mixed", cases=1)
    with pytest.raises(
        InputError, match=r"expected the classes lesion of summary\.json in every case, found others"
    ):
        read_evaluation(tmp_path / "mixed")
    (a / "cases" / "case000.json").write_text('{"case": "x"}')
    with pytest.raises(InputError, match=r"case000\.json: expected the record of a case"):
        read_evaluation(a)
    with pytest.raises(InputError, match="--names: expected 2 different names"):
        read_evaluations([a, tmp_path / "empty"], ["x", "x"])


def test_other_records_than_those_of_the_summary(tmp_path):
    folder = write_evaluation(tmp_path / "a", cases=3)
    assert len(read_evaluation(folder).records) == 3
    write_evaluation(folder, cases=2)
    with pytest.raises(
        InputError,
        match=r"cases: expected the records of the 2 cases in summary\.json, found 3\. Evaluate again",
    ):
        read_evaluation(folder)
    (folder / "cases" / "case002.json").unlink()
    assert len(read_evaluation(folder).records) == 2


def test_names_tell_folders_apart(tmp_path):
    folders = [write_evaluation(tmp_path / name / "evaluation") for name in ("p", "q")]
    assert [it.name for it in read_evaluations(folders)] == ["p/evaluation", "q/evaluation"]
    assert [it.name for it in read_evaluations(folders, ["one", "two"])] == ["one", "two"]


def test_measures_that_cannot_be_compared(tmp_path):
    folders = [write_evaluation(tmp_path / name) for name in "ab"]
    pairs = [tuple(read_evaluations(folders))]
    with pytest.raises(
        InputError, match=r"--metrics: expected measures .* dice.*, found volume_ml \(volume_ml: neither"
    ):
        compare(pairs, measures=["dice", "volume_ml"])
    with pytest.raises(InputError, match="found dcie"):
        compare(pairs, measures=["dcie"])
    assert [row.measure for row in compare(pairs, resamples=50).rows] == [
        "dice", "bdice", "ece", "brier", "volume_bias",
    ]  # fmt: skip


def test_every_measure_has_its_name_and_a_definition():
    assert all(name == it.name and it.definition for name, it in MEASURES.items())


def test_comparing_needs_no_torch():
    code = (
        "import sys, nnunet_dml.evaluation.compare; print(sorted({'torch', 'nnunetv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
