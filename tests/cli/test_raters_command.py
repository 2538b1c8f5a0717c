"""`nnunet-dml raters` from arguments to files."""

import csv
import json
import os

import numpy as np
import pytest

from nnunet_dml.cli.main import main
from tests.evaluation.rater_world import RaterWorld, write_image


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    return RaterWorld(tmp_path)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results" / "raters"


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def refused(capsys, *arguments, out=None):
    """Status 2, lines about the command and no traceback; what was there stays as it was."""
    before = sorted(out.rglob("*")) if out and out.exists() else None
    assert main(["raters", *map(str, arguments), "-np", "1"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if line.startswith("nnunet-dml raters: ")]
    assert lines
    assert "Traceback" not in printed.err
    if out:
        assert (sorted(out.rglob("*")) if out.exists() else None) == before
    return "\n".join(lines)


def test_files_table_and_pictures(world, out, capsys):
    assert main(["raters", "-d", "7", "-o", str(out), "-np", "1", "--pictures", "2"]) == 0
    printed = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        "cases.csv", "pairs.csv", "pictures", "raters.csv", "summary.json",
    ]  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert f"mean: {100 * summary['mean']['dice_majority']:.2f}" in printed
    assert "4 of 4 cases" in printed
    assert "2 pictures in" in printed
    assert len(list((out / "pictures").iterdir())) == 2
    assert list(rows(out / "cases.csv")[0])[:4] == ["case", "class", "raters", "dice_majority"]
    assert [(r["case"], r["class"], r["rater"]) for r in rows(out / "raters.csv")] == [
        (case, name, f"rater{r}") for case in "abcd" for name in ("core", "rim") for r in range(3)
    ]
    assert [(r["rater"], r["other"]) for r in rows(out / "pairs.csv")[:3]] == [
        ("rater0", "rater1"), ("rater0", "rater2"), ("rater1", "rater2"),
    ]  # fmt: skip
    assert {r["volume_ml"] for r in rows(out / "raters.csv")} == {"nan"}
    means = {}
    for name in ("core", "rim"):
        own = [float(r["dice_majority"]) for r in rows(out / "cases.csv") if r["class"] == name]
        means[name] = np.mean(own)
        assert summary["per_class"][name]["dice_majority"] == pytest.approx(means[name])
    assert summary["mean"]["dice_majority"] == pytest.approx(np.mean(list(means.values())))


def test_without_a_folder_nothing_is_written(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["raters", "-d", "Dataset007_Toy", "-np", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compared"] == 4
    assert sorted(tmp_path.rglob("*")) == before


def test_a_later_run_replaces_an_earlier_one(world, out, capsys):
    assert main(["raters", "-d", "7", "-o", str(out), "-np", "1", "--pictures", "all"]) == 0
    assert len(list((out / "pictures").iterdir())) == 4
    assert main(["raters", "-d", "7", "-o", str(out), "-np", "1", "--pictures", "1"]) == 0
    assert len(list((out / "pictures").iterdir())) == 1
    assert main(["raters", "-d", "7", "-o", str(out), "-np", "1", "--pictures", "none"]) == 0
    assert not (out / "pictures").exists()
    assert "pictures" not in capsys.readouterr().out.splitlines()[-1]


def test_a_folder_of_masks(tmp_path, out, capsys):
    masks = np.zeros((3, 12, 12), np.uint8)
    for r in range(3):
        masks[r, 2 : 6 + r, 2:9] = 255
        write_image(tmp_path / "masks" / "case" / f"r{r}.png", masks[r])
    assert main(["raters", "--folder", str(tmp_path / "masks"), "-o", str(out), "-np", "1"]) == 0
    # vote: 5 rows; raters: 4, 5 and 6
    assert f"mean: {100 * (8 / 9 + 1 + 10 / 11) / 3:.2f}" in capsys.readouterr().out
    assert [path.name for path in (out / "pictures").iterdir()] == ["case.png"]


def test_bad_arguments(world, out, capsys):
    for arguments in (
        ["-d", "7", "--folder", "x"],
        [],
        ["-d", "7", "--pictures", "some"],
        ["-d", "7", "--pictures", "-1"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(["raters", *arguments])
        assert caught.value.code == 2
    capsys.readouterr()
    assert "--pictures: expected a folder for them, found no -o" in refused(
        capsys, "-d", "7", "--pictures", "3"
    )


def test_no_dataset(world, out, capsys, monkeypatch):
    assert "expected a data set 8, found Dataset007_Toy" in refused(capsys, "-d", "8", "-o", out, out=out)
    (world.folder / "dataset.json").unlink()
    assert f"{world.folder / 'dataset.json'}: expected a file" in refused(
        capsys, "-d", "7", "-o", out, out=out
    )
    monkeypatch.delenv("nnUNet_raw")
    assert "nnUNet_raw: expected a folder in this variable" in refused(capsys, "-d", "7")


def test_no_raters(world, out, capsys):
    for case in "abcd":
        for r in range(3):
            world.mask(case, r).unlink()
    text = refused(capsys, "-d", "7", "-o", out, out=out)
    assert "expected at least one case with the masks of two raters" in text
    assert "found none: 4 cases, 0 of them with one rater" in text


def test_damaged_masks_are_all_named(world, out, capsys):
    for case in "ac":
        path = world.mask(case, 1)
        path.write_bytes(path.read_bytes()[:40])
    world.write_mask("d", 2, np.zeros((7, 6), np.uint8))
    text = refused(capsys, "-d", "7", "-o", out, out=out)
    assert len(text.splitlines()) == 3
    for case, r in (("a", 1), ("c", 1), ("d", 2)):
        assert str(world.mask(case, r)) in text


def test_a_missing_image_leaves_nothing_behind_and_no_pictures_need_none(world, out, capsys):
    for case in "abcd":
        world.image(case).unlink()
    text = refused(capsys, "-d", "7", "-o", out, out=out)
    assert "Or ask for --pictures none." in text
    assert len(text.splitlines()) == 4
    assert main(["raters", "-d", "7", "-o", str(out), "-np", "1", "--pictures", "none"]) == 0


def test_a_failed_run_leaves_an_earlier_one_as_it_was(world, out, capsys):
    assert main(["raters", "-d", "7", "-o", str(out), "-np", "1"]) == 0
    kept = (out / "summary.json").read_text()
    world.image("a").unlink()
    capsys.readouterr()
    refused(capsys, "-d", "7", "-o", out, out=out)
    assert (out / "summary.json").read_text() == kept


@pytest.mark.parametrize("name", ["cases.csv", "pictures", "summary.json"])
def test_what_is_somebody_elses_is_not_replaced(world, out, capsys, name):
    out.mkdir(parents=True)
    if name == "pictures":
        (out / name).mkdir()
    else:
        (out / name).write_text("{}")
    assert f"found {name}" in refused(capsys, "-d", "7", "-o", out, out=out)


def test_an_output_that_cannot_be_written(world, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "expected a folder, found a file" in refused(capsys, "-d", "7", "-o", tmp_path / "file")
    if os.geteuid() != 0:  # root may write everywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "expected a folder that can be written" in refused(
            capsys, "-d", "7", "-o", tmp_path / "locked" / "x"
        )


def test_a_full_disk(world, out, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pandas.DataFrame.to_csv", full)
    assert "No space left on device" in refused(capsys, "-d", "7", "-o", out, "--pictures", "none", out=out)
