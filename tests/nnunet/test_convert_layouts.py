"""Converting each layout of raters' files."""

import numpy as np
import pytest

from nnunet_dml._checks import InputError
from tests.nnunet.convert_helpers import NAME, convert, dataset_json, load, masks, save


@pytest.fixture
def src(tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    return folder


class TestLayouts:
    def qubiq(self, src, tasks=(1,), image="image.nii.gz"):
        for case in ("case01", "case02"):
            save(src / case / image, np.zeros((6, 5), np.float32))
            for task in tasks:
                for rater, mask in enumerate(masks(3, (6, 5), seed=task), start=1):
                    save(src / case / f"task{task:02d}_seg{rater:02d}.nii.gz", mask)

    def test_qubiq(self, raw, src):
        self.qubiq(src, tasks=(1, 2))
        with pytest.raises(InputError, match=r"expected one task, found tasks 1, 2. Choose one with --task"):
            convert(src, layout="qubiq")
        with pytest.raises(InputError, match=r"--task: expected one of 1, 2 .*found 3"):
            convert(src, layout="qubiq", task=3)
        convert(src, layout="qubiq", task=2)
        assert dataset_json(raw)["labels"] == {"background": 0, "task02": 1}
        assert dataset_json(raw)["nnunet_dml"]["raters"] == ["seg01", "seg02", "seg03"]
        expected = masks(3, (6, 5), seed=2)[1]
        np.testing.assert_array_equal(load(raw / NAME / "ratersTr/case02/seg02.nii.gz"), expected)

    def test_qubiq_with_one_task_needs_no_option(self, raw, src):
        self.qubiq(src, tasks=(4,))
        convert(src, layout="qubiq")
        assert "task04" in dataset_json(raw)["labels"]

    def test_flat(self, raw, src):
        """A case's name may contain the separator; the image also fits the masks' pattern."""
        each = masks(2, (6, 5))
        for case in ("p_1", "p_2"):
            save(src / f"{case}_img.png", np.zeros((6, 5), np.uint8))
            for rater, mask in zip(("dr_x", "y"), each, strict=True):
                save(src / f"{case}_{rater}.png", mask)
        (src / "readme.txt").write_text("notes")
        result = convert(src, layout="flat", images="{case}_img.png", raters="{case}_{rater}.png")
        assert [(case.name, sorted(case.raters)) for case in result.cases] == [
            (f"p_{i}", ["dr_x", "y"]) for i in (1, 2)
        ]
        np.testing.assert_array_equal(load(raw / NAME / "ratersTr/p_2/dr_x.png"), each[0])
        assert any(line.startswith("ignored: 1 (readme.txt)") for line in result.summary())

    def test_flat_with_folders_and_stars(self, raw, src):
        save(src / "x/scan_a.nii.gz", np.zeros((6, 5), np.uint8))
        save(src / "y/ann/a-v2.nii.gz", masks(1, (6, 5))[0])
        convert(src, layout="flat", images="x/scan_{case}.*", raters="y/{rater}/{case}-*.nii.gz")
        assert (raw / NAME / "ratersTr/a/ann.nii.gz").is_file()

    def test_flat_ambiguous_name(self, raw, src):
        for case in ("a", "a_b"):
            save(src / f"{case}_img.png", np.zeros((6, 5), np.uint8))
            save(src / f"{case}_r.png", masks(1, (6, 5))[0])
        save(src / "a_b_c.png", masks(1, (6, 5))[0])
        with pytest.raises(
            InputError, match=r"a_b_c.png: .*found case a by rater b_c or case a_b by rater c"
        ):
            convert(src, layout="flat", images="{case}_img.png", raters="{case}_{rater}.png")

    @pytest.mark.parametrize(
        ("images", "raters", "message"),
        [
            (None, "{case}_{rater}.png", r"--images: expected a pattern with \{case\}, found None"),
            ("{case}.png", "{case}.png", r"--raters: expected a pattern with \{case\} and \{rater\}"),
            ("{case}{mod}.png", "{case}_{rater}.png", "--images: expected a pattern"),
        ],
    )
    def test_flat_patterns(self, raw, src, images, raters, message):
        with pytest.raises(InputError, match=message):
            convert(src, layout="flat", images=images, raters=raters)
