"""Many cases in one process or several."""

from __future__ import annotations

import os

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml._parallel import each


def square(number: int) -> int:
    if number < 0:
        raise InputError(f"{number}: expected at least 0.", "and more")
    if number == 99:
        raise OSError("no space")
    if number == 13:
        os._exit(1)
    return number**2


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_problems_all_together(processes):
    assert each(square, [3, 1, 2], processes=processes, title="x") == [9, 1, 4]
    with pytest.raises(InputError) as caught:
        each(square, [-1, 2, -3], processes=processes, title="x")
    assert caught.value.problems == ("-1: expected at least 0.", "and more", "-3: expected at least 0.")
    with pytest.raises(OSError, match="no space"):
        each(square, [1, 99, -1], processes=processes, title="x")


def test_a_worker_that_is_killed():
    with pytest.raises(InputError, match="-np: expected worker processes to live, found one was killed"):
        each(square, [1, 13], processes=2, title="x")


def test_the_bar_says_that_processes_start_until_the_first_result(capsys):
    each(square, [3, 1, 2], processes=2, title="Squares")
    shown = [it for it in capsys.readouterr().err.replace("\n", "\r").split("\r") if it.strip()]
    assert shown[0].startswith("Squares (starting 2 processes):   0%|")
    assert "0/3" in shown[0]
    assert shown[-1].startswith("Squares: 100%|")
    assert not [it for it in shown if "starting" in it and "0/3" not in it]
    each(square, [3, 1, 2], processes=1, title="Squares")
    assert capsys.readouterr().err == ""  # done at once: nothing to be shown


def test_no_process():
    with pytest.raises(InputError, match="-np: expected at least 1 process, found 0"):
        each(square, [1], processes=0, title="x")
