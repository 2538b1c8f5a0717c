"""Which unlabelled images there are, and the options that need them."""

from __future__ import annotations

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.option_checks import check_unlabelled
from nnunet_dml.nnunet.options import parse_assignments, validate
from nnunet_dml.nnunet.unlabelled import FOLDER, raw_cases
from nnunet_dml.nnunet.unlabelled_loader import rank_batch_size


@pytest.fixture
def raw_folder(tmp_path):
    """Two cases of two channels, and a labelled one of another name."""
    for name in ("a_0000", "a_0001", "b_0000", "b_0001"):
        (tmp_path / FOLDER).mkdir(exist_ok=True)
        (tmp_path / FOLDER / f"{name}.nii.gz").touch()
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "labelsTr" / "c.nii.gz").touch()
    return tmp_path


def problems_of(*arguments):
    with pytest.raises(InputError) as caught:
        raw_cases(*arguments)
    return list(caught.value.problems)


class TestRawCases:
    def test_cases_and_channels(self, raw_folder):
        (raw_folder / FOLDER / ".hidden_0000.nii.gz").touch()
        (raw_folder / FOLDER / "notes.txt").touch()
        cases = raw_cases(raw_folder, ".nii.gz", 2)
        assert {case: list(files) for case, files in cases.items()} == {
            "a": ["0000", "0001"],
            "b": ["0000", "0001"],
        }
        assert cases["b"]["0001"] == raw_folder / FOLDER / "b_0001.nii.gz"

    def test_a_picture_holds_all_channels(self, tmp_path):
        (tmp_path / FOLDER).mkdir()
        (tmp_path / FOLDER / "a_0000.png").touch()
        assert list(raw_cases(tmp_path, ".png", 3)) == ["a"]

    def test_no_folder_no_files_or_others(self, tmp_path):
        (line,) = problems_of(tmp_path, ".nii.gz", 1)
        assert "CASE_0000.nii.gz" in line
        assert "found no folder" in line
        (tmp_path / FOLDER).mkdir()
        assert "found none" in problems_of(tmp_path, ".nii.gz", 1)[0]
        (tmp_path / FOLDER / "a_0000.nrrd").touch()
        assert "found a_0000.nrrd" in problems_of(tmp_path, ".nii.gz", 1)[0]

    def test_all_problems_are_named_together(self, raw_folder):
        (raw_folder / FOLDER / "b_0001.nii.gz").unlink()
        (raw_folder / FOLDER / "c_0000.nii.gz").touch()
        (raw_folder / FOLDER / "c_0001.nii.gz").touch()
        for name in ("d.nii.gz", "e_0000.nii", "e_0001.mha", "notes.txt"):
            (raw_folder / FOLDER / name).touch()
        strange, missing, labelled = problems_of(raw_folder, ".nii.gz", 2)
        assert "found d.nii.gz, e_0000.nii, e_0001.mha. Rename them." in strange
        assert "expected channels 0000, 0001 of b, found 0000." in missing
        assert "expected cases that are not in labelsTr, found c." in labelled

    def test_a_channel_too_many(self, raw_folder):
        assert len(problems_of(raw_folder, ".nii.gz", 1)) == 2


class TestOptions:
    def test_they_are_parsed(self):
        given = ["unlabelled.batch_size=3", "unlabelled.labels=hard", "unlabelled.cutmix=0"]
        assert parse_assignments(given) == {"unlabelled": {"batch_size": 3, "labels": "hard", "cutmix": 0}}

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("ema", 1.0),
            ("confidence", 1.0),
            ("cutmix", 1.1),
            ("intensity", -1),
            ("batch_size", 0),
            ("labels", "x"),
        ],
    )
    def test_out_of_range(self, name, value):
        with pytest.raises(InputError, match=f"unlabelled.{name}"):
            validate({"unlabelled": {name: value}}, where="plans")

    @pytest.mark.parametrize("half", ["labelled", "unlabelled"])
    def test_a_half_without_weight(self, half):
        shares = {f"ce_{half}": 0, f"overlap_{half}": 0}
        with pytest.raises(InputError, match=f"ce_{half} and unlabelled.overlap_{half} are both 0"):
            validate({"unlabelled": shares}, where="plans")
        options = validate({"loss": {"weight_ce": 0}, "unlabelled": {f"overlap_{half}": 0}}, where="plans")
        with pytest.raises(InputError, match=f"loss.weight_ce × unlabelled.ce_{half}"):
            check_unlabelled(options, where="plans")

    @pytest.mark.parametrize(("start", "refused"), [(3, False), (4, True)])
    def test_it_must_begin_before_it_ends(self, start, refused):
        options = validate({"training": {"epochs": 4}, "unlabelled": {"start_epoch": start}}, where="plans")
        if not refused:
            return check_unlabelled(options, where="plans")
        with pytest.raises(InputError, match=r"start_epoch below training.epochs \(4\), found 4"):
            check_unlabelled(options, where="plans")

    def test_lovasz_needs_hard_labels(self):
        options = validate({"loss": {"overlap": "lovasz"}}, where="plans")
        with pytest.raises(InputError, match=r"found lovasz\. Set dml, jml or ctl"):
            check_unlabelled(options, where="plans")

    def test_the_share_of_a_rank(self, monkeypatch):
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
        sizes = []
        for rank in range(3):
            monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
            sizes.append(rank_batch_size(5, 2, "plans"))
        assert sizes == [2, 2, 1]
        assert rank_batch_size(None, 2, "plans") == 2
        with pytest.raises(InputError, match="at least 3, a patch for each GPU, found 2"):
            rank_batch_size(2, 2, "plans")
