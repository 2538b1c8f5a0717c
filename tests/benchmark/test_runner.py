"""Running a grid: each cell once, what is done is skipped, what fails is noted and the rest goes on."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.benchmark.cells import Place, check_data, failure_of, run_cell, state
from nnunet_dml.benchmark.grid import cells, read_grid
from nnunet_dml.benchmark.runner import on_a_cluster, on_this_machine, run


def grid_of(world):
    name, grid = read_grid(str(world.grid))
    return Place.of(name), cells(name, grid)


def test_all_cells_are_trained_and_then_skipped(world):
    place, made = grid_of(world)
    assert run(made, on_this_machine(place)) == {"done": 8}
    assert len(world.calls("train")) == 8
    assert len(world.calls("dml")) == 4, "folds share their plans"
    assert run(made, on_this_machine(place)) == {"done": 8}
    assert len(world.calls("train")) == 8


def test_plans_are_written_again_when_the_grid_asks_for_others(world):
    place, made = grid_of(world)
    run(made[:1], on_this_machine(place))
    world.grid.write_text(
        world.grid.read_text().replace("folds: [0, 1]", "folds: [0, 1]\noptions: {loss.smooth: 0}")
    )
    place, made = grid_of(world)
    shutil.rmtree(world.path / "results" / "Dataset901_One")
    run(made[:1], on_this_machine(place))
    assert [("loss.smooth=0" in it) for it in world.calls("dml")] == [False, True]


def test_what_fails_is_noted_and_the_rest_goes_on(world):
    world.setenv("BROKEN", "soft_jml")
    place, made = grid_of(world)
    assert run(made, on_this_machine(place, jobs=3)) == {"done": 6, "failed": 2}
    failed = [it for it in made if state(it, place) == "failed"]
    assert {it.row for it in failed} == {"soft, jml"}
    line = failure_of(failed[0], place)
    assert line.startswith("Dataset901_One soft, jml seed 1234 fold 0: status 3, no memory left (")
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
    counts.put(dict(run(cells(name, it), on_this_machine(Place.of(name), jobs=2))))


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


def test_a_killed_training_is_gone_on_with(world):
    place, made = grid_of(world)
    world.setenv("BROKEN", "soft_dml")
    assert run_cell(made[0], place) == "failed"
    world.setenv("BROKEN", "nothing")
    assert run_cell(made[0], place) == "done"
    assert all(it.endswith("--npz --c") for it in world.calls("train"))
    assert len(world.calls("dml")) == 1


def test_a_student_without_its_teacher_fails_and_says_so(world):
    text = world.grid.read_text().replace(
        "jml: {trainer: nnUNetTrainerJML,", "jml: {trainer: nnUNetTrainerJML, teacher: dml,"
    )
    world.grid.write_text(text)
    world.setenv("BROKEN", "soft_dml")
    place, made = grid_of(world)
    assert run(made, on_this_machine(place)) == {"done": 4, "failed": 4}
    student = next(it for it in made if it.row == "soft, jml")
    assert "its teacher is not trained: Dataset901_One soft, dml seed 1234 fold 0" in failure_of(
        student, place
    )


def test_the_same_through_submitit(world):
    place, made = grid_of(world)
    world.setenv("BROKEN", "hard_jml")
    assert run(made[:6], on_a_cluster(place, cluster="local", parameters={"timeout_min": 5})) == {"done": 6}
    assert run(made, on_a_cluster(place, cluster="local")) == {"done": 6, "failed": 2}
    assert len(world.calls("train")) == 8


def test_a_cluster_that_is_not_there_is_refused(world):
    place, _ = grid_of(world)
    with pytest.raises(InputError, match=r"--executor slurm: expected SLURM \(sbatch\), found"):
        on_a_cluster(place, cluster="slurm")
    with pytest.raises(InputError, match=r"--slurm: expected parameters of submitit, found"):
        on_a_cluster(place, cluster="local", parameters={"timeout_minutes": 5})


def test_fewer_than_one_job_is_refused(world):
    with pytest.raises(InputError, match="-j: expected at least 1"):
        on_this_machine(grid_of(world)[0], jobs=0)


def test_data_that_are_not_preprocessed_are_refused_with_the_command(world):
    _, made = grid_of(world)
    check_data(made)
    shutil.rmtree(world.made / "nnUNetPlans_2d")
    with pytest.raises(InputError, match="Run `nnUNetv2_plan_and_preprocess -d 901 -c 2d`"):
        check_data(made)
    shutil.rmtree(world.made)
    with pytest.raises(InputError, match="expected preprocessed data of Dataset901_One for 2d, found none"):
        check_data(made)
