"""What the page says of given figures."""

import math
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks import _page, _store, run
from benchmarks._timing import Aim, Curve, Line, Options, Row, Table


@pytest.fixture
def row():
    lines = {
        "nnunet_dml, soft": Line((0.1, 0.2, 0.3), 10.0),
        "other": Line((0.4,), 40.0),
        "killed one": Line(),
    }
    curve = Curve(
        "voxels",
        (10, 20, 40),
        {"nnunet_dml, soft": [Line((t,)) for t in (1, 4, 16)], "other": [Line((t,), 8.0) for t in (1, 2, 4)]},
    )
    return Row(
        "loss",
        "The loss",
        "What was done.",
        [Table("2 × 3", lines, "A note.")],
        [Aim("time ÷ other", 0.5, "≤", 0.6), Aim("memory ÷ other", 0.25, "≤", 0.1)],
        [curve],
        ["the loss on a GPU"],
    )


def text(*rows):
    return _page.page(rows, figures="figures")


def test_aims_are_met_or_not(row):
    said = text(row)
    assert "1 of 2 aims are met" in said
    assert "| loss: time ÷ other | ≤ 0.6 | 0.5 | met |" in said
    assert "| loss: memory ÷ other | ≤ 0.1 | 0.25 | **not met** |" in said


def test_a_line_has_median_range_and_ratios(row):
    said = text(row)
    assert "| 2 × 3 | time | ours ÷ this | memory | ours ÷ this |" in said
    assert "| other | 400 ms, once | 0.5 | 40 MiB | 0.25 |" in said
    assert "| nnunet_dml, soft | 200 ms (100 ms – 300 ms) | 1 | 10 MiB | 1 |" in said
    assert "| killed one | killed |" in said
    assert "A note." in said


def test_growth_that_is_not_linear_is_said_of_ours_only(row):
    said = text(row)
    assert "| nnunet_dml, soft | 1 s | 4 s | 16 s | 2.00 | 2.00 |" in said
    assert "nnunet_dml, soft: time grows as voxels^2.00, not linearly: the reason is not known." in said
    assert "other: time grows" not in said
    assert "| other, MiB | 8 | 8 | 8 | | |" in said


@pytest.mark.parametrize(
    ("reason", "slope", "last", "said"),
    [
        ("sorting", 1.4, 1.4, "sorting"),
        ("", 0.5, 0.9, "a fixed cost weighs at small sizes, the last step has 0.90"),
        ("", 0.5, 0.4, "each step costs less than its share"),
        ("", 1.5, 1.5, "the reason is not known"),
    ],
)
def test_the_reason(reason, slope, last, said):
    assert _page.why(Curve("keys", (), {}, reason=reason), slope, last) == said


def test_machine_command_and_what_is_missing(row):
    said = text(replace(row, measured=_page.stamp("python benchmarks/run.py", 2)))
    assert "**Measured** by `python benchmarks/run.py` (2 threads), " in said
    assert "Not measured here: the loss on a GPU." in said
    assert " cores, " in said
    assert "nnunetv2 " in said
    assert re.search(r"nnunet_dml \S", said)


def test_rows_are_kept_as_they_are(row, tmp_path):
    killed = Line(had=2048.0, value=[[1.0], [math.nan]])
    row = replace(row, tables=[*row.tables, Table("4 × 5", {"a": killed})], measured="a command")
    _store.save(row, tmp_path)
    found, missing = _store.load(tmp_path, ["loss", "kde"])
    assert text(found) == text(row)
    line = found.tables[-1].lines["a"]
    assert (line.seconds, line.mib, line.had, line.value[0]) == ((), None, 2048.0, [1.0])
    assert "Not measured here: kde." in text(missing)


def test_pictures_stand_where_the_page_looks_for_them(row, tmp_path):
    _page.draw([row], tmp_path)
    (picture,) = tmp_path.iterdir()
    assert f"](figures/{picture.name})" in text(row)
    first = picture.read_bytes()
    _page.draw([row], tmp_path)
    assert picture.read_bytes() == first


def test_numbers():
    assert [_page.seconds(it) for it in (1362.0, 1.2345, 0.0123456, math.nan)] == [
        "22.7 min",
        "1.23 s",
        "12.3 ms",
        "killed",
    ]
    assert _page.number(math.nan) == ""


def test_a_row_that_fails_is_said_to_be_missing(tmp_path, monkeypatch, capsys):
    module = SimpleNamespace(measure=lambda options: options.nothing)
    monkeypatch.setitem(sys.modules, "benchmarks.loss", module)
    rows = list(run.measure(("loss",), Options(tmp_path)))
    assert "AttributeError" in capsys.readouterr().err
    assert "Not measured here: loss, which failed with AttributeError." in text(*rows)
