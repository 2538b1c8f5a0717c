"""Options that are valid by themselves and do not fit the labels of a data set."""

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.option_checks import check_against_labels
from nnunet_dml.nnunet.option_groups import Options
from nnunet_dml.nnunet.targets import TargetLayout

LABELS = TargetLayout(foreground=2, regions=None, ignore_label=None)
REGIONS = TargetLayout(foreground=2, regions=((1, 2), (2,)), ignore_label=3)


def check(layout=LABELS, source="hard", **groups):
    check_against_labels(Options.model_validate(groups), source, layout, where="plans p")


@pytest.mark.parametrize(
    ("groups", "layout", "source", "words"),
    [
        ({"loss": {"class_weights": [1, 2]}}, LABELS, "hard", "expected 3 loss.class_weights, each of a label, the background first, found 2"),
        ({"loss": {"class_weights": [1, 2, 3]}}, REGIONS, "hard", "expected 2 loss.class_weights, each of a region, found 3"),
        ({"loss": {"class_weights": [1, 0, 0]}}, LABELS, "hard", "a foreground weight above 0"),
        ({"loss": {"background": True}}, REGIONS, "hard", "loss.background=false with region-based labels"),
        ({"loss": {"overlap": "lovasz"}}, LABELS, "uniform", "found labels.source=uniform, labels.smoothing=off"),
        ({"loss": {"active": "label"}, "labels": {"smoothing": "all", "epsilon": 0.3}}, LABELS, "hard", "loss.threshold above 0.1, which smoothing gives to every class, found 0.01"),
        ({"loss": {"active": "both"}, "labels": {"smoothing": "boundary", "epsilon": 0.3}}, REGIONS, "hard", "loss.threshold above 0.15"),
        ({"loss": {"overlap": "lovasz"}, "labels": {"smoothing": "all"}}, LABELS, "hard", "labels.smoothing=all"),
        ({"loss": {"overlap": "lovasz"}, "teacher": {"model": "m"}}, LABELS, "hard", "teacher.overlap_teacher=0 with loss.overlap=lovasz, which is not defined on soft labels, found 0.5"),
        ({"loss": {"weight_ce": 0}, "teacher": {"model": "m", "overlap_label": 0, "overlap_teacher": 0}}, LABELS, "hard", "a term above 0 among loss.weight_ce × teacher.ce_…"),
    ],
)  # fmt: skip
def test_refused_with_the_reason(groups, layout, source, words):
    with pytest.raises(InputError) as caught:
        check(layout, source, **groups)
    (line,) = caught.value.problems
    assert line.startswith("plans p: expected ")
    assert words in line


def test_all_that_does_not_fit_is_named():
    with pytest.raises(InputError) as caught:
        check(REGIONS, "file", loss={"class_weights": [1], "background": True, "overlap": "lovasz"})
    assert len(caught.value.problems) == 3


def test_what_fits():
    check(loss={"class_weights": [0, 1, 2], "background": False})
    check(loss={"class_weights": [1, 0, 0], "background": True})
    check(loss={"class_weights": [1, 0, 0], "weight_overlap": 0})
    check(REGIONS, loss={"class_weights": [1, 2]})
    check(loss={"active": "label", "threshold": 0.11}, labels={"smoothing": "all", "epsilon": 0.3})
    check(loss={"active": "prob"}, labels={"smoothing": "all", "epsilon": 0.3})
    check(loss={"active": "label"})
    check(loss={"overlap": "lovasz"}, teacher={"model": "m", "overlap_teacher": 0})
    check(loss={"weight_ce": 0}, teacher={"overlap_label": 0, "overlap_teacher": 0})  # nobody teaches
    for source in ("hard", "random"):
        check(source=source, loss={"overlap": "lovasz"})
