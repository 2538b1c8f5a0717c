"""`nnunet-dml benchmark`: from a grid's file to trainings and tables, with commands that only note their calls."""

from __future__ import annotations

import json

import pytest

from nnunet_dml.cli.main import main
from tests.benchmark.conftest import world  # noqa: F401 (a fixture)


def run(*words):
    return main(["benchmark", *map(str, words)])


def test_a_dry_run_prints_what_could_be_typed(world, capsys):  # noqa: F811
    assert run("run", world.grid, "--dry-run", "-device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# done: nnUNetv2_plan_and_preprocess -d 901 -c 2d --verify_dataset_integrity"
    assert lines[1] == "nnunet-dml preprocess -d 901 -c 2d --fusion uniform"
    assert lines[2] == 'eval "$(nnunet-dml env)"'
    assert sum(it.startswith("nnUNetv2_train 901 2d ") and it.endswith("-device cpu") for it in lines) == 8
    assert sum(it.startswith("nnunet-dml configure -d 901") for it in lines) == 4
    assert not world.calls("train")


def test_trainings_that_fail_are_listed_and_the_status_says_so(world, capsys):  # noqa: F811
    world.setenv("BROKEN", "hard_jml")
    assert run("run", world.grid, "-j", 2) == 1
    out = capsys.readouterr().out
    assert "6 done, 2 failed of 8 trainings." in out
    assert "Dataset901_One hard, jml seed 1234 fold 1: status 3, no memory left" in out
    world.setenv("BROKEN", "nothing")
    assert run("run", world.grid, "--quick") == 0
    assert "2 done of 2 trainings." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nnUNetTrainerDML}", "nnUNetTrainerDMK}", "expected a trainer that nnU-Net finds, found nnUNetTrainerDMK"),
        ("labels.source: uniform", "labels.source: unifrom", "bad value 'unifrom' of labels.source"),
        ("labels.source: uniform", "labels.sources: uniform", "expected name=value with a name of"),
        ("metrics: [dice, ece_pooled]", "metrics: [dise]", "table.metrics: expected some of"),
        ("title: A grid", "titel: A grid", "titel: unknown key"),
    ],
)  # fmt: skip
def test_bad_grids_end_with_status_2_before_anything_runs(world, capsys, old, new, message):  # noqa: F811
    world.grid.write_text(world.grid.read_text().replace(old, new))
    assert run("run", world.grid) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(world.grid.name) in error or "table.metrics" in error
    assert not world.calls("train")


def test_data_that_are_not_preprocessed_end_with_status_2(world, capsys):  # noqa: F811
    (world.made / "nnUNetPlans.json").unlink()
    assert run("run", world.grid) == 2
    assert "Run `nnUNetv2_plan_and_preprocess -d 901 -c 2d`" in capsys.readouterr().err


def test_raw_data_are_converted_planned_and_fused(world, capsys):  # noqa: F811
    text = world.grid.read_text().replace(
        "name: One}", "name: One, folder: one, convert: --layout qubiq --task 2, groups: '(p.*)_.*'}"
    )
    world.grid.write_text(text)
    assert run("run", world.grid, "--data", world.path / "challenge") == 2
    assert (
        "challenge/one: expected the raw data of Dataset901_One, found no folder." in capsys.readouterr().err
    )
    (world.path / "challenge" / "one").mkdir(parents=True)
    assert run("run", world.grid, "--data", world.path / "challenge", "--quick") == 0
    assert [it.split(" -o ")[0] for it in world.calls("dml")][:3] == [
        f"dml convert raters {world.path}/challenge/one --dataset 901_One --layout qubiq --task 2",
        "dml split -d 901 --groups (p.*)_.*",
        "dml preprocess -d 901 -c 2d --fusion uniform",
    ]


def test_a_step_of_the_preparation_that_fails_is_named(world, capsys):  # noqa: F811
    (world.path / "bin" / "nnunet-dml").write_text("#!/bin/bash\necho 'no such rater' >&2; exit 2\n")
    (world.path / "challenge").mkdir()
    assert run("run", world.grid, "--data", world.path / "challenge") == 2
    error = capsys.readouterr().err
    assert "nnunet-dml preprocess -d 901 -c 2d --fusion uniform: expected it to work" in error
    assert "status 2: no such rater. See " in error


def test_tables_without_trainings_are_refused(world, capsys):  # noqa: F811
    assert run("tables", world.grid, "-o", world.path / "out") == 2
    assert (
        "expected trained cells, found none. Run `nnunet-dml benchmark run` first." in capsys.readouterr().err
    )
    assert not (world.path / "out").exists()


def test_parameters_of_slurm(world, capsys):  # noqa: F811
    assert run("run", world.grid, "--executor", "local", "--slurm", "timeout_min") == 2
    assert "--slurm: expected NAME=VALUE, found timeout_min." in capsys.readouterr().err
    assert run("run", world.grid, "--executor", "slurm") == 2
    assert "expected SLURM (sbatch)" in capsys.readouterr().err
    assert json.loads((world.made / "nnUNetPlans.json").read_text())
