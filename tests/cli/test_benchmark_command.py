"""`nnunet-dml benchmark`: from a grid's file to trainings and tables, with commands that only note their calls."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nnunet_dml.cli.main import main
from nnunet_dml.evaluation.records import CaseRecord, Sources, write_record
from tests.benchmark.conftest import world  # noqa: F401 (a fixture)


def run(*words):
    return main(["benchmark", *map(str, words)])


def test_a_dry_run_prints_what_could_be_typed(world, capsys):  # noqa: F811
    assert run("run", world.grid, "--dry-run", "-device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# done: nnUNetv2_plan_and_preprocess -d 901 -c 2d --verify_dataset_integrity"
    assert lines[1] == "# done: nnunet-dml preprocess -d 901 -c 2d -p nnUNetPlans --fusion uniform"
    assert lines[2] == 'eval "$(nnunet-dml env)"'
    assert sum(it.startswith("nnUNetv2_train 901 2d ") and it.endswith("-device cpu") for it in lines) == 8
    assert sum(it.startswith("nnunet-dml configure -d 901") for it in lines) == 4
    assert not world.calls("train")


def test_trainings_that_fail_are_listed_and_the_status_says_so(world, capsys):  # noqa: F811
    world.setenv("BROKEN", "hard_jml")
    assert run("run", world.grid, "-j", 2) == 1
    out = capsys.readouterr().out
    assert "6 done, 2 failed of 8 trainings." in out
    assert "one hard, jml seed 1234 fold 1: status 3, no memory left" in out
    world.setenv("BROKEN", "nothing")
    assert run("run", world.grid, "--quick") == 0
    assert "2 done of 2 trainings." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nnUNetTrainerDML}", "nnUNetTrainerDMK}", "methods.dml.trainer: expected a trainer that nnU-Net finds, found nnUNetTrainerDMK"),
        ("labels.source: uniform", "labels.source: unifrom", "labels.soft: bad value 'unifrom' of labels.source"),
        ("labels.source: uniform", "labels.sources: uniform", "labels.soft labels.sources=uniform: expected name=value with an option's name such as labels.source"),
        ("metrics: [dice, ece_pooled]", "metrics: [dise]", "table.metrics: expected some of"),
        ("title: A grid", "titel: A grid", "titel: unknown key"),
        ("folds: [0, 1]", "folds: [0, 1]\noptions: {training.epochs: 0}", "grid.yaml: options: bad value 0 of training.epochs"),
        ("nnUNetTrainerJML,", "nnUNetTrainerJML, teacher: dml,", "methods.jml.teacher: expected a trainer that learns from a teacher, such as nnUNetTrainerDML_KD, found nnUNetTrainerJML."),
        ("nnUNetTrainerDML}", "nnUNetTrainerDML_KD}", "methods.dml.teacher: expected a method, or teacher.model or teacher.maps among its options, for nnUNetTrainerDML_KD, found none."),
        ("nnUNetTrainerDML}", "nnUNetTrainerDML_SSL}", "raw/Dataset901_One/imagesUnlabelledTr: expected unlabelled images for nnUNetTrainerDML_SSL, found none."),
        ("nnUNetTrainerDML}", "nnUNetTrainer}", "methods.dml.trainer: expected a trainer that reads options and seeds, found nnUNetTrainer"),
        ("loss.weight_ce: 1.0", "loss.alpha: 0.3", "loss.alpha is read with loss.overlap=ctl only"),
        ("folds: [0, 1]", 'networks: {r: {network: "smp:Unet:resnet19"}}', "expected an encoder such as resnet18"),
        ("folds: [0, 1]", "networks: {r: {recipe: papr}}", "--recipe: expected one of paper, paper-60, found papr"),
        ("soft, dml", "soft, dmm", "table.paper.one: expected a row, a label source or a method of the grid"),
        ("{dice: 91.5}", "{dise: 91.5}", "table.paper.one.soft, dml: expected figures as in metrics, found dise"),
    ],
)  # fmt: skip
def test_bad_grids_end_with_status_2_before_anything_runs(world, capsys, old, new, message):  # noqa: F811
    world.grid.write_text(world.grid.read_text().replace(old, new))
    assert run("run", world.grid) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(world.grid.name) in error or "table.metrics" in error or "imagesUnlabelledTr" in error
    assert not world.calls("train")
    assert not list((world.path / "results").iterdir())


def test_students_of_maps_or_of_a_model_outside_the_grid_are_none_of_its_business(world):  # noqa: F811
    for option in ("teacher.model: /models/big", "teacher.maps: big"):
        text = world.grid.read_text()
        world.grid.write_text(
            text.replace("nnUNetTrainerDML}", f"nnUNetTrainerDML_KD, options: {{{option}}}}}")
        )
        assert run("run", world.grid, "--dry-run") == 0
        world.grid.write_text(text)


def test_unlabelled_images_are_preprocessed(world, capsys):  # noqa: F811
    world.grid.write_text(world.grid.read_text().replace("nnUNetTrainerDML}", "nnUNetTrainerDML_SSL}"))
    (world.path / "raw/Dataset901_One/imagesUnlabelledTr").mkdir()
    assert run("run", world.grid, "--quick") == 2
    assert "Run `nnunet-dml preprocess -d 901 -c 2d -p nnUNetPlans`, or" in capsys.readouterr().err
    (world.made / "nnUNetPlans_2d_unlabelled").mkdir()
    (world.made / "nnUNetPlans_2d_unlabelled/u.pkl").touch()
    assert run("run", world.grid, "--quick") == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("", "raw/Dataset901_One: expected the raw data set, which the grid does not convert, found none. Put it there."),
        (", folder: one, convert: --task 2", "raw/Dataset901_One: expected the raw data set, found none. Add --data FOLDER, which holds one."),
    ],
)  # fmt: skip
def test_raw_data_that_are_missing_are_named(world, capsys, more, message):  # noqa: F811
    world.grid.write_text(world.grid.read_text().replace("name: One", f"name: One{more}"))
    shutil.rmtree(world.path / "raw/Dataset901_One")
    assert run("run", world.grid, "--quick") == 0, "nothing more is made of them"
    shutil.rmtree(world.made)
    shutil.rmtree(world.path / "results")
    assert run("run", world.grid) == 2
    assert message in capsys.readouterr().err
    assert not (world.path / "results").exists()


def test_data_that_are_not_preprocessed_end_with_status_2(world, capsys):  # noqa: F811
    (world.made / "nnUNetPlans.json").unlink()
    assert run("run", world.grid) == 2
    assert (
        "Run `nnUNetv2_plan_and_preprocess -d 901 -c 2d --verify_dataset_integrity && nnunet-dml"
        in capsys.readouterr().err
    )


def test_raw_data_are_converted_planned_and_fused(world, capsys):  # noqa: F811
    text = world.grid.read_text().replace(
        "name: One}", "name: One, folder: one, convert: --layout qubiq --task 2, groups: '(p.*)_.*'}"
    )
    world.grid.write_text(text)
    (world.path / "raw" / "Dataset901_One" / "dataset.json").unlink()
    shutil.rmtree(world.made / "nnUNetPlans_2d_soft" / "uniform")
    assert run("run", world.grid, "--data", world.path / "challenge") == 2
    assert (
        "challenge/one: expected the raw data of Dataset901_One, found no folder." in capsys.readouterr().err
    )
    (world.path / "challenge" / "one").mkdir(parents=True)
    # the stand-ins write nothing, so that it is not done when all was run
    assert run("run", world.grid, "--data", world.path / "challenge", "--quick") == 2
    assert world.calls("dml") == [
        f"dml convert raters {world.path}/challenge/one --dataset 901_One --layout qubiq --task 2",
        "dml split -d 901 --groups (p.*)_.*",
        "dml preprocess -d 901 -c 2d -p nnUNetPlans --fusion uniform",
    ]
    assert (
        "expected preprocessed data of Dataset901_One for 2d, found none, or a part of it"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(("given", "seen"), [("0", "1"), ("3", "3")])
def test_preparation_has_a_thread_where_trainings_have_no_workers(world, given, seen):  # noqa: F811
    """nnU-Net's preprocessing makes nnUNet_n_proc_DA its number of threads, and torch takes no 0."""
    (world.path / "bin" / "nnunet-dml").write_text('#!/bin/bash\necho "dml $nnUNet_n_proc_DA" >> "$CALLS"\n')
    world.setenv("nnUNet_n_proc_DA", given)
    (world.path / "challenge").mkdir()
    shutil.rmtree(world.made / "nnUNetPlans_2d_soft" / "uniform")
    assert run("run", world.grid, "--data", world.path / "challenge") == 2  # the stand-in makes nothing
    assert world.calls("dml") == [f"dml {seen}"]


def test_a_step_of_the_preparation_that_fails_is_named(world, capsys):  # noqa: F811
    (world.path / "bin" / "nnunet-dml").write_text("#!/bin/bash\necho 'no such rater' >&2; exit 2\n")
    (world.path / "challenge").mkdir()
    shutil.rmtree(world.made / "nnUNetPlans_2d_soft" / "uniform")
    assert run("run", world.grid, "--data", world.path / "challenge") == 2
    error = capsys.readouterr().err
    assert "nnunet-dml preprocess -d 901 -c 2d -p nnUNetPlans --fusion uniform: expected it to work" in error
    assert "status 2: no such rater. See " in error


def test_tables_without_trainings_are_refused(world, capsys):  # noqa: F811
    assert run("tables", world.grid, "-o", world.path / "out") == 2
    assert (
        "expected trained cells, found none. Run `nnunet-dml benchmark run` first." in capsys.readouterr().err
    )
    assert not (world.path / "out").exists()
    assert not list((world.path / "results").iterdir())


def test_parameters_of_slurm(world, capsys):  # noqa: F811
    for words, message in (
        (["--slurm", "timeout_min"], "--slurm: expected NAME=VALUE, found timeout_min."),
        (["--slurm", "slurm_partition=gpu"], "--slurm: expected timeout_min=MINUTES"),
        (["--slurm", "timeout_min=600"], "--slurm: expected SLURM (sbatch)"),
        (["--slurm", "timeout_min=600", "--gpus", "0"], "--gpus: expected none with --slurm, found some."),
        (["-j", "0"], "-j: expected at least 1"),
        (["--gpus", "-1"], "--gpus: expected numbers from 0 on, found -1."),
    ):
        assert run("run", world.grid, *words) == 2
        assert message in capsys.readouterr().err
    assert not world.calls("train")


def test_tables_are_made_of_the_folds_that_are_done(world, capsys, monkeypatch):  # noqa: F811
    seen, chosen, places = [], [], []

    def evaluated(commands, log, *rest, **more):
        command = commands[0]
        folder, model = Path(command[command.index("-o") + 1]), Path(command[command.index("--model") + 1])
        seen.append(sorted(it.name for it in model.glob("fold_*")))
        places.append((folder, (folder / "cases" / "old.json").exists()))
        chosen.append(command[command.index("-f") + 1 : command.index("-o")])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").write_text(
            json.dumps({"dataset": "x", "classes": ["a"], "source": "s", "notes": ["n"]})
        )
        for fold in seen[-1]:
            record = CaseRecord(fold, fold[5:], Sources("p", "r"), (1, 1, 1), {"ece": 0.1}, {"a": {"dice": 0.9}},
                                {"reliability": [[10], [9], [8]]})  # fmt: skip
            write_record(folder, record)
        return 0

    world.setenv("BROKEN", "jml")
    assert run("run", world.grid) == 1
    begun = (
        world.path / "results" / "Dataset901_One" / "nnUNetTrainerDML__grid_soft_dml_seed1234__2d" / "fold_3"
    )
    begun.mkdir()
    monkeypatch.setattr("nnunet_dml.benchmark.results.call", evaluated)
    capsys.readouterr()
    assert run("tables", world.grid, "-o", world.path / "out") == 0
    out = capsys.readouterr().out
    assert seen == [["fold_0", "fold_1"]] * 2, "fold 3 is not the grid's"
    assert chosen == [["0", "1"]] * 2, "of folds that the grid does not ask for nothing is said"
    assert "90.00 ± 0.00" in out
    assert "Not trained: one soft, jml seed 1234 fold 0, " in out
    assert sorted(it.suffix for it in (world.path / "out").iterdir()) == [".csv", ".html", ".md", ".tex"]

    # an evaluation of a fold that the grid had once is made anew: `evaluate -f` would refuse to remove it
    for (folder, _), fold in zip(places[:2], ("1", "4"), strict=True):
        old = CaseRecord(
            "old",
            fold,
            Sources("p", "r"),
            (1, 1, 1),
            {"ece": 0.1},
            {"a": {"dice": 0.9}},
            {"reliability": [[10], [9], [8]]},
        )
        write_record(folder, old)
    assert run("tables", world.grid, "-o", world.path / "out") == 0
    assert [there for _, there in places] == [False, False, True, False]
