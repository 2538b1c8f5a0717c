"""How the benchmarks measure: order, memory, what is killed, growth."""

import math

import pytest

from benchmarks._timing import Aim, Line, Options, alternate, compare, exponent, in_fresh_processes, over

STAND_IN = "tests.benchmarks_run.stand_in"


def test_the_order_alternates_after_a_round_of_warm_up():
    called = []
    seconds = alternate({name: lambda name=name: called.append(name) for name in "ab"}, 2)
    assert "".join(called) == "abbaab"
    assert {name: len(its) for name, its in seconds.items()} == {"a": 2, "b": 2}


def test_memory_is_that_of_the_call_alone():
    found = in_fresh_processes(STAND_IN, ["large", "small"], {"mib": 20}, 1)
    assert found["small"].mib == pytest.approx(40, abs=5)  # the bytes and their copy
    assert found["large"].mib == pytest.approx(160, abs=5)
    assert found["small"].value == [20 << 20]


def test_who_is_killed_is_tried_once_and_the_others_go_on(tmp_path):
    lines = compare(STAND_IN, {}, Options(tmp_path), rounds=2, apart=True)
    assert list(lines) == ["small", "large", "killed"]
    assert [len(it.seconds) for it in lines.values()] == [2, 2, 0]
    assert math.isnan(lines["killed"].median)
    assert lines["killed"].mib is None
    assert 10 < lines["killed"].had < 1e8  # MiB


def test_what_crashes_is_not_taken_for_killed():
    with pytest.raises(RuntimeError, match="stand_in"):
        in_fresh_processes(STAND_IN, ["crashed"], {}, 1)


def test_what_fails_is_not_taken_for_killed():
    with pytest.raises(RuntimeError, match="no such thing"):
        in_fresh_processes(STAND_IN, ["small"], {"fail": True}, 1)


def test_a_curve_has_a_line_per_size(tmp_path, monkeypatch):
    monkeypatch.delattr(f"{STAND_IN}.candidates", raising=False)
    monkeypatch.setattr(f"{STAND_IN}.candidates", lambda n: {"it": lambda: sum(range(n))}, raising=False)
    curve = over(STAND_IN, "numbers", (10, 100), [{"n": 10}, {"n": 100}], Options(tmp_path, "minute"))
    assert (curve.over, list(curve.lines), len(curve.lines["it"])) == ("numbers", ["it"], 2)


def test_exponents():
    assert exponent((1, 2, 4, 8), (3, 6, 12, 24)) == pytest.approx(1)
    assert exponent((1, 2, 4, 8), (3, 12, 48, 192)) == pytest.approx(2)
    assert math.isnan(exponent((1, 2), (1, math.nan)))


@pytest.mark.parametrize(
    ("found", "sense", "met"),
    [(1.0, "≤", True), (1.01, "≤", False), (8, "≥", True), (7.9, "≥", False), (math.nan, "≤", False)],
)
def test_aims(found, sense, met):
    assert Aim("x", found, sense, 1.0 if sense == "≤" else 8).met is met


def test_a_share_of_the_work_is_scaled():
    assert Line((1.0, 3.0), 2.0).scaled(10) == Line((10.0, 30.0), 20.0)
