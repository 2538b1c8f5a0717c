"""Running a grid: each cell once, what is done is skipped, what fails is noted and the rest goes on."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import threading
import time

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.benchmark.cells import (
    Place,
    check_options,
    failure_of,
    interrupt,
    run_cell,
    state,
    telling_line,
)
from nnunet_dml.benchmark.data import check_data
from nnunet_dml.benchmark.grid import read_grid
from nnunet_dml.benchmark.runner import Job, on_a_cluster, on_this_machine, run
from nnunet_dml.benchmark.training import cells


def grid_of(world):
    name, grid = read_grid(str(world.grid))
    return Place.of(name).made(), cells(name, grid)


def test_all_cells_are_trained_and_then_skipped(world):
    place, made = grid_of(world)
    assert run(made, on_this_machine(place)) == {"done": 8}
    assert len(world.calls("train")) == 8
    assert len(world.calls("dml")) == 4, "folds share their plans"
    assert run(made, on_this_machine(place)) == {"done": 8}
    assert len(world.calls("train")) == 8


def test_a_grid_whose_options_changed_does_not_go_on_with_its_models(world):
    place, made = grid_of(world)
    run(made[:1], on_this_machine(place))
    check_options(made, place)
    world.grid.write_text(
        world.grid.read_text().replace("folds: [0, 1]", "folds: [0, 1]\noptions: {loss.smooth: 0}")
    )
    place, made = grid_of(world)
    with pytest.raises(
        InputError, match=r"soft_dml_seed1234__2d: expected a model of .*, found one begun with other"
    ):
        check_options(made, place)
    shutil.rmtree(world.path / "results" / "Dataset901_One")
    check_options(made, place)
    run(made[:1], on_this_machine(place))
    assert [("loss.smooth=0" in it) for it in world.calls("dml")] == [False, True]


def test_neither_does_one_that_was_planned_anew(world):
    place, made = grid_of(world)
    run(made[:1], on_this_machine(place))
    plans = world.made / "nnUNetPlans.json"
    plans.write_text(plans.read_text().replace("{", '{"spacing": 2, ', 1))
    with pytest.raises(InputError, match="found one begun with other options or plans"):
        check_options(made, place)


def test_what_fails_is_noted_and_the_rest_goes_on(world):
    world.setenv("BROKEN", "soft_jml")
    place, made = grid_of(world)
    assert run(made, on_this_machine(place, jobs=3)) == {"done": 6, "failed": 2}
    failed = [it for it in made if state(it, place) == "failed"]
    assert {it.row for it in failed} == {"soft, jml"}
    line = failure_of(failed[0], place)
    assert line.startswith("one soft, jml seed 1234 fold 0: status 3, no memory left (")
    noted = json.loads(place.failure(failed[0].name).read_text())
    assert "$ nnUNetv2_train 901 2d 0" in place.log(failed[0].name).read_text()
    assert noted["commands"][-1].startswith("nnUNetv2_train 901 2d 0 -tr nnUNetTrainerJML")
    world.setenv("BROKEN", "nothing")
    assert run(made, on_this_machine(place)) == {"done": 8}, "it is tried again"
    assert not any(state(it, place) == "failed" for it in made)


def test_gpus_are_given_in_turn(world):
    world.setenv("SLOW", "0.1")
    place, made = grid_of(world)
    run(made, on_this_machine(place, gpus=[0, 3]))
    found = {it.split()[1] for it in world.calls("train")}
    assert found == {"gpu=0", "gpu=3"}


def all_of(grid, counts):
    name, it = read_grid(grid)
    counts.put(dict(run(cells(name, it), on_this_machine(Place.of(name).made(), jobs=2))))


def test_two_runners_train_no_cell_twice(world):
    world.setenv("SLOW", "0.2")
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    runners = [context.Process(target=all_of, args=(str(world.grid), counts)) for _ in range(2)]
    for it in runners:
        it.start()
    found = [counts.get(timeout=60) for _ in runners]
    for it in runners:
        it.join()
    calls = world.calls("train")
    assert len(calls) == len(set(calls)) == 8
    assert all(it.get("failed", 0) == 0 for it in found)
    assert any(it.get("busy", 0) for it in found), "they met"


def test_a_killed_runner_frees_its_cell_when_its_training_ends(world):
    place, made = grid_of(world)
    context = multiprocessing.get_context("fork")
    world.setenv("SLOW", "1")
    runner = context.Process(target=run_cell, args=(made[0], place))
    runner.start()
    while not world.calls("train"):
        time.sleep(0.01)
    assert run_cell(made[0], place) == "busy"
    runner.kill()
    runner.join()
    assert run_cell(made[0], place) == "busy", "its training lives on"
    while (found := run_cell(made[0], place)) == "busy":
        time.sleep(0.05)
    assert found == "done"
    assert len(world.calls("train")) == 1


def test_a_full_disk_fails_a_cell_and_not_the_grid(world, monkeypatch):
    place, made = grid_of(world)
    logs = place.folder / "logs"
    shutil.rmtree(logs)
    logs.symlink_to("/dev/full/none")  # no log can be written
    assert run(made[:2], on_this_machine(place)) == {"failed": 2}
    assert "Not a directory" in failure_of(made[0], place)


def test_nothing_of_a_training_outlives_it(world):
    """Workers that a killed training leaves behind would hold its lock."""
    train = world.path / "bin" / "nnUNetv2_train"
    train.write_text(train.read_text().replace("mkdir -p", "sleep 60 &\nmkdir -p", 1))
    place, made = grid_of(world)
    assert run_cell(made[0], place) == "done"
    for _ in range(100):  # the system takes a moment
        with place.lock(made[0].name, wait=False) as held:
            if held is not None:
                return
        time.sleep(0.05)
    pytest.fail("its lock is still held")


def test_an_interrupt_reaches_the_trainings(world):
    world.setenv("SLOW", "60")
    place, made = grid_of(world)
    begun = time.monotonic()
    thread = threading.Thread(target=run_cell, args=(made[0], place))
    thread.start()
    while not world.calls("train"):
        time.sleep(0.01)
    time.sleep(0.1)
    interrupt()
    thread.join()
    assert time.monotonic() - begun < 30
    assert state(made[0], place) == "failed"


def test_a_terminated_runner_ends_its_trainings(world):
    world.setenv("SLOW", "120")
    place, made = grid_of(world)
    begun = time.monotonic()
    runner = multiprocessing.get_context("fork").Process(target=run, args=(made, on_this_machine(place)))
    runner.start()
    while not world.calls("train"):
        time.sleep(0.01)
    runner.terminate()
    runner.join()
    world.setenv("SLOW", "0")
    assert run_cell(made[0], place) == "done"
    assert time.monotonic() - begun < 100
    assert len(world.calls("train")) == 2, "no other one was begun"


def test_a_training_that_is_just_being_started_ends_with_its_runner(world, monkeypatch):
    world.setenv("SLOW", "60")
    place, made = grid_of(world)

    class Late(subprocess.Popen):
        """The runner is interrupted before it sees what it has started."""

        def __init__(self, command, **how):
            super().__init__(command, **how)
            if "nnUNetv2_train" in command[0]:
                interrupt()

    begun = time.monotonic()
    monkeypatch.setattr("nnunet_dml.benchmark.cells.subprocess.Popen", Late)
    assert run_cell(made[0], place) == "failed"
    assert time.monotonic() - begun < 50


def test_a_student_without_its_teacher_fails_and_says_so(world):
    text = world.grid.read_text().replace(
        "jml: {trainer: nnUNetTrainerJML,", "jml: {trainer: nnUNetTrainerJML, teacher: dml,"
    )
    world.grid.write_text(text)
    world.setenv("BROKEN", "soft_dml")
    place, made = grid_of(world)
    assert run(made, on_this_machine(place)) == {"done": 4, "failed": 4}
    student = next(it for it in made if it.row == "soft, jml")
    assert "its teacher is not trained: one soft, dml seed 1234 fold 0" in failure_of(student, place)


def test_the_same_through_submitit(world):
    place, made = grid_of(world)
    world.setenv("BROKEN", "hard_jml")
    assert run(made[:6], on_a_cluster(place, cluster="local", parameters={"timeout_min": 5})) == {"done": 6}
    assert run(made, on_a_cluster(place, cluster="local")) == {"done": 6, "failed": 2}
    assert len(world.calls("train")) == 8


def test_a_cluster_that_is_not_there_is_refused(world):
    place, _ = grid_of(world)
    with pytest.raises(InputError, match=r"--slurm: expected SLURM \(sbatch\), found"):
        on_a_cluster(place, parameters={"timeout_min": 5})
    with pytest.raises(InputError, match=r"expected timeout_min=MINUTES, .* ends every job after 5 minutes"):
        on_a_cluster(place)
    with pytest.raises(InputError, match=r"--slurm: expected parameters of submitit, found"):
        on_a_cluster(place, cluster="local", parameters={"timeout_minutes": 5})


@pytest.mark.parametrize(("count", "found"), [(None, "0, 1, 2, 3, 4"), (1, "0")])
def test_folds_that_the_splits_lack_are_refused(world, count, found):
    """nnU-Net would split at random."""
    if count:
        (world.made / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}] * count))
    world.grid.write_text(world.grid.read_text().replace("folds: [0, 1]", "folds: [0, 7]"))
    with pytest.raises(InputError) as caught:
        check_data(grid_of(world)[1])
    where = world.made / "splits_final.json"
    assert caught.value.problems == (
        f"{where}: expected fold 7 of Dataset901_One, found {found}. Change `folds` of the grid, or split anew.",
    )


def test_a_fold_without_training_cases_is_refused_where_it_is_to_be_trained(world):
    """As for an external validation; nnU-Net would end in a traceback."""
    folds = [{"train": ["a"], "val": ["b"]}, {"train": [], "val": ["a", "b"]}]
    (world.made / "splits_final.json").write_text(json.dumps(folds))
    where = world.made / "splits_final.json"
    with pytest.raises(InputError) as caught:
        check_data(grid_of(world)[1])
    assert caught.value.problems == (
        f"{where}: expected training cases in fold 1, found none. Choose a fold that has some.",
    )
    world.grid.write_text(world.grid.read_text().replace("folds: [0, 1]", "folds: [0]"))
    check_data(grid_of(world)[1])


def test_what_a_log_has_to_say(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text(
        "$ a\nOSError: of an earlier run\n$ b\nValueError: no such rater\nadapt your environment\n\n"
    )
    assert telling_line(log) == "ValueError: no such rater"
    log.write_text("$ a\nOSError: of an earlier run\n$ b\nfirst\nlast\n")
    assert telling_line(log) == "last"
    log.write_text("$ a\n")
    assert telling_line(log) == ""


def test_gpus_below_0_are_refused(world):
    with pytest.raises(InputError, match=r"--gpus: expected numbers from 0 on, found -1\."):
        on_this_machine(grid_of(world)[0], gpus=[0, -1])


def test_fewer_than_one_job_is_refused(world):
    with pytest.raises(InputError, match="-j: expected at least 1"):
        on_this_machine(grid_of(world)[0], jobs=0)


def test_a_job_that_dies_on_the_cluster_is_noted(world, monkeypatch):
    class Dying:
        def __call__(self, cell, place):
            raise RuntimeError("the node went down")

    place, made = grid_of(world)
    monkeypatch.setattr("nnunet_dml.benchmark.runner.Job", Dying)
    assert run(made[:1], on_a_cluster(place, cluster="local")) == {"failed": 1}
    assert "the node went down" in (found := failure_of(made[0], place)), found


def test_a_job_at_its_time_limit_is_submitted_again():
    again = Job().checkpoint("cell", "place")
    assert isinstance(again.function, Job)
    assert again.args == ("cell", "place")


def test_data_that_are_not_preprocessed_are_refused_with_the_commands(world):
    _, made = grid_of(world)
    check_data(made)
    maps = world.made / "nnUNetPlans_2d_soft" / "uniform"
    (maps / "b.b2nd").rename(maps / ".tmp-b.b2nd")  # killed on the way
    with pytest.raises(
        InputError, match="Run `nnunet-dml preprocess -d 901 -c 2d -p nnUNetPlans --fusion uniform`"
    ):
        check_data(made)
    (maps / ".tmp-b.b2nd").rename(maps / "b.b2nd")
    (world.made / "nnUNetPlans_2d" / "b.pkl").unlink()  # killed on the way
    with pytest.raises(
        InputError, match="Run `nnUNetv2_plan_and_preprocess -d 901 -c 2d --verify_dataset_integrity`"
    ):
        check_data(made)
    shutil.rmtree(world.made)
    with pytest.raises(InputError, match="expected preprocessed data of Dataset901_One for 2d, found none"):
        check_data(made)


def test_a_configuration_that_the_plans_lack_is_refused(world):
    world.grid.write_text(world.grid.read_text().replace("name: One", "name: One, configuration: 3d_lowres"))
    with pytest.raises(InputError, match="expected a configuration 3d_lowres, found 2d"):
        check_data(grid_of(world)[1])


def test_folds_that_mix_a_patients_cases_are_refused(world):
    world.grid.write_text(world.grid.read_text().replace("name: One", "name: One, groups: '(p.)_.*'"))
    _, made = grid_of(world)
    splits = world.made / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["p1_a"], "val": ["p1_b"]}]))
    with pytest.raises(InputError, match=r"Run `nnunet-dml split -d 901 --groups '\(p.\)_.\*'`"):
        check_data(made)
    splits.write_text(json.dumps([{"train": ["p1_a"], "val": ["p2_b"]}] * 2))
    check_data(made)
