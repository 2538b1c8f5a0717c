"""Grids: what is read, what is refused, and the commands of the cells."""

from __future__ import annotations

import pytest
import yaml

from nnunet_dml._checks import InputError
from nnunet_dml.benchmark import checks, tables
from nnunet_dml.benchmark.grid import READY_MADE, read_grid, ready_made
from nnunet_dml.benchmark.training import cells

from .conftest import GRID

ONE = {"id": 901, "name": "One"}


def changed(tmp_path, **parts):
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(GRID), "quick": {}, **parts}))
    return str(path)


def refusal(*arguments, **named):
    with pytest.raises(InputError) as caught:
        read_grid(*arguments, **named)
    return "\n".join(caught.value.problems)


def test_every_combination_is_a_cell(world):
    name, grid = read_grid(str(world.grid))
    made = cells(name, grid)
    assert len(made) == 2 * 2 * 2
    assert len({it.name for it in made}) == 8
    assert len({it.model for it in made}) == 4
    assert made[0].model == "Dataset901_One/nnUNetTrainerDML__grid_soft_dml_seed1234__2d"
    assert made[0].row == "soft, dml"


def test_a_cell_is_two_commands_that_a_user_could_type(world):
    name, grid = read_grid(str(world.grid))
    cell = next(it for it in cells(name, grid) if (it.labels, it.method, it.fold) == ("soft", "jml", 1))
    plans = "grid_soft_jml_seed1234"
    assert cell.configure == [
        *("nnunet-dml", "configure", "-d", "901", "-p", "nnUNetPlans", "-o", plans, "--overwrite"),
        *("--set", "labels.source=uniform", "loss.weight_ce=1.0", "training.seed=1234"),
    ]
    train = ["nnUNetv2_train", "901", "2d", "1", "-tr", "nnUNetTrainerJML", "-p", plans, "--npz", "--c"]
    assert cell.train(None) == train
    assert cell.train("cpu") == [*train, "-device", "cpu"]


def test_options_of_a_method_win_over_those_of_labels_and_of_all(tmp_path):
    path = changed(
        tmp_path,
        options={"labels.source": "staple", "training.epochs": 3},
        labels={"a": {"labels.source": "uniform"}, "": {}},
        methods={"m": {"trainer": "T"}, "n": {"trainer": "T", "options": {"labels.source": "hard"}}},
    )
    made = cells(*read_grid(path))
    sources = {(it.labels, it.method): it.options["labels.source"] for it in made}
    assert sources == {("a", "m"): "uniform", ("", "m"): "staple", ("a", "n"): "hard", ("", "n"): "hard"}
    assert {it.options["training.epochs"] for it in made} == {3}


def test_quick_replaces_and_has_results_of_its_own(world):
    name, grid = read_grid(str(world.grid), quick=True)
    assert name == "gridquick"
    assert {(it.method, it.fold) for it in cells(name, grid)} == {("dml", 0)}


def test_teachers_come_before_their_students(tmp_path):
    path = changed(
        tmp_path,
        labels={"": {}},
        networks={"big": {}, "small": {"scale_features": 0.25}},
        methods={
            "KD": {
                "trainer": "nnUNetTrainerDML_KD",
                "teacher": "hard",
                "teacher_network": "big",
                "networks": ["small"],
            },
            "hard": {"trainer": "nnUNetTrainerDML"},
        },
    )
    made = cells(*read_grid(path))
    assert [(it.method, it.network, it.fold) for it in made] == [
        *(("hard", "big", 0), ("hard", "big", 1), ("hard", "small", 0), ("hard", "small", 1)),
        *(("KD", "small", 0), ("KD", "small", 1)),
    ]
    student = made[-1]
    assert student.teacher is made[1]
    words = student.configure
    assert words[words.index("--teacher") + 1] == "nnUNetTrainerDML__changed_hard_big_seed1234__2d"
    assert words[words.index("--scale-features") + 1] == "0.25"
    assert words[words.index("-c") + 1] == "2d", "the network of the configuration that is trained"


@pytest.mark.parametrize(
    "parts",
    [
        {"datasets": {"a": {"id": 1, "name": "A"}, "b": {"id": 1, "name": "A"}}},
        {"datasets": {"a": {"id": 1, "name": "A"}, "b": {"id": 1, "name": "A", "plans": "other"}}},
        {
            "labels": {"a": {}, "a_b": {}},
            "methods": {"c": {"trainer": "T"}, "b_c": {"trainer": "T", "options": {"loss.smooth": 0}}},
        },
        {"methods": {"a+b": {"trainer": "T"}, "a_b": {"trainer": "T"}}},
    ],
)
def test_cells_that_would_share_a_folder_are_refused(tmp_path, parts):
    with pytest.raises(
        InputError, match=r"expected (a folder of its own|one configuration and one plans file)"
    ):
        cells(*read_grid(changed(tmp_path, table={}, **parts)))


def test_yamls_off_is_smoothings_off(tmp_path):
    path = tmp_path / "off.yaml"
    path.write_text(GRID.replace("labels.source: hard", "labels.source: hard, labels.smoothing: off"))
    words = {word for it in cells(*read_grid(str(path))) for word in it.assignments}
    assert "labels.smoothing=off" in words


@pytest.mark.parametrize("name", ready_made())
@pytest.mark.parametrize("quick", [False, True])
def test_the_packages_grids_are_grids(name, quick):
    short, grid = read_grid(name, quick=quick)
    made = cells(short, grid)
    assert {it.fold for it in made} == set(range(5)) or quick
    checks.check(grid, made, where=name)
    assert all(
        set(it) <= set(grid.table.metrics) for rows in grid.table.paper.values() for it in rows.values()
    )
    long = tables.long_table(grid, {}, made)
    shown = {(it["dataset"], it["row"]) for it in long[long["paper"].notna()].to_dict("records")}
    named = {(dataset, row) for dataset, rows in grid.table.paper.items() for row in rows}
    assert {it for it, _ in shown} == {it for it, _ in named}
    assert len(shown) >= len(named)
    if not quick or name in ("table1", "table4"):
        assert named


def test_figures_that_stand_in_several_tables_of_the_paper_are_the_same():
    paper = {name: read_grid(name)[1].table.paper for name in ready_made()}
    for task, rows in paper["table1"].items():
        assert paper["table4"][task]["hard"] == rows["majority"]
        assert paper["table4"][task]["DML1"] == rows["weighted"]
    for archive in ("LiTS", "KiTS"):
        taught = paper["table3"][archive]["KD, UNet-R18"]
        assert taught == paper["table5"][archive]["KDE"] == paper["table8"][archive]["h1e-3"]
        assert paper["table4-kd"][archive]["DML1"] == paper["table8"][archive]["none"]
        assert paper["table4-kd"][archive]["hard"] == paper["table3"][archive]["hard, UNet-R18"]


def test_a_name_of_the_packages_grids_is_listed_where_there_is_no_file(tmp_path):
    message = refusal(str(tmp_path / "none.yaml"))
    assert "none.yaml: expected a YAML file of a grid, found none." in message
    assert all(it.stem in message for it in READY_MADE.glob("*.yaml"))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"sees": [1]}, "sees: unknown key. Valid ones: title, datasets, labels,"),
        ({"labels": {}}, "labels: Dictionary should have at least 1 item"),
        ({"table": {"paper": {"two": {}}}}, "table.paper: expected data sets of the grid, found two"),
        ({"methods": {"m": {"trainer": "T", "epochs": 3}}}, "methods.m.epochs: unknown key"),
        ({"methods": {}}, "methods: Dictionary should have at least 1 item"),
        ({"datasets": {"one": {"name": "One"}}}, "datasets.one.id: expected a value, found none."),
        ({"folds": [0, 0]}, "expected folds and seeds from 0 on, each once, found [0, 0]"),
        ({"methods": {"a/b": {"trainer": "T"}}}, "found 'a/b'"),
        ({"methods": {"m": {"trainer": "T", "teacher": "x"}}}, "methods.m.teacher: expected a method without a teacher"),
        ({"methods": {"m": {"trainer": "T", "teacher": "m"}}}, "found m"),
        ({"methods": {"m": {"trainer": "T", "teacher_network": "b"}}}, "teacher_network is read with a teacher only"),
        ({"methods": {"m": {"trainer": "T", "networks": ["b"]}}}, "methods.m.networks: expected some of"),
        ({"datasets": {"one": {**ONE, "groups": "p.*"}}}, "datasets.one.groups: expected a regular expression with a group"),
        ({"datasets": {"one": {**ONE, "groups": "(p"}}}, "datasets.one.groups: expected a regular expression with a group"),
        ({"datasets": {"one": {**ONE, "plan": "--x 'y"}}}, "datasets.one.plan: expected words as a shell reads them"),
        ({"datasets": {"one": {**ONE, "convert": '-l "y'}}}, "datasets.one.convert: expected words as a shell reads them"),
        ({"datasets": {"one": {**ONE, "kind": "foo"}}}, "datasets.one.kind: Input should be 'raters', 'lits', 'kits' or 'lidc'"),
        ({"table": {"metrics": []}}, "table.metrics: List should have at least 1 item"),
        ({"table": {"metrics": ["dice", "dice"]}}, "table.metrics: expected each figure once, found dice, dice"),
        ({"quick": {"fold": [0]}}, "quick.fold: unknown key. Valid ones: title, datasets, labels,"),
        ({"quick": {"networks": {"n": {"batch": 3}}}}, "quick.networks.n.batch: unknown key"),
        ({"quick": {"methods": ["dmm"]}}, "quick.methods: expected some of dml, jml, found dmm."),
    ],
)  # fmt: skip
def test_what_is_no_grid_is_refused_with_the_place(tmp_path, parts, message):
    found = refusal(changed(tmp_path, **parts))
    assert "changed.yaml" in found
    assert message in found


def test_a_key_twice_is_refused(world):
    world.grid.write_text(world.grid.read_text().replace("folds: [0, 1]", "folds: [0, 1]\nfolds: [1]"))
    assert "grid.yaml: expected each key once, found 'folds' twice (line 12)." in refusal(str(world.grid))


@pytest.mark.parametrize("text", ["- a\n- b\n", "title: [", "\x00"])
def test_what_is_no_yaml_mapping_is_refused(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert "bad.yaml: expected a" in refusal(str(path))


def test_data_sets_can_be_chosen(tmp_path):
    path = changed(tmp_path, datasets={"a": {"id": 1, "name": "A"}, "b": {"id": 2, "name": "B"}}, table={})
    assert {it.dataset.name for it in cells(*read_grid(path, datasets=["b"]))} == {"B"}
    assert "datasets: expected some of a, b, found c." in refusal(path, datasets=["c"])


@pytest.mark.parametrize(
    ("quick", "message"),
    [
        ({}, "expected a part `quick` for --quick, found none."),
        (True, "expected a part `quick` for --quick, found bool."),
        ({"datasets": [["x"]]}, "datasets: expected some of"),
    ],
)
def test_quick_without_a_good_quick_part_is_refused(tmp_path, quick, message):
    assert message in refusal(changed(tmp_path, quick=quick), quick=True)
