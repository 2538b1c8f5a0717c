"""The tutorials' commands really run, as a reader's would: in an empty folder. Only the trainings are shorter.

Commands are forked from a process that has imported PyTorch already (`tests.preloaded`); but in the first tutorial nnU-Net's
are the installed ones themselves, with their start and spawned worker processes.
"""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import blocks, run_bash, script

TUTORIALS = sorted({it.page for it in blocks("bash") if it.page.startswith("docs/tutorials/")})
FIRST = "docs/tutorials/first-model.md"
SHORT = (
    (r"training\.epochs=\d+", "training.epochs=1"),
    (r"training\.(val_)?iterations=\d+", r"training.\1iterations=2"),
    (r"nnUNet_def_n_proc=2", "nnUNet_def_n_proc=1"),
    (r"-npfp 2 -np 2", "-npfp 1 -np 1"),
)


def test_there_are_three():
    assert [re.sub(r".*/|\.md", "", it) for it in TUTORIALS] == ["distillation", "first-model", "your-raters"]


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_runs(page, quick, tmp_path, tmp_path_factory):
    code = script(page)
    for pattern, short in SHORT:
        code, count = re.subn(pattern, short, code)
        assert count, f"{page} has no {pattern}"
    if page == FIRST:
        ours = tmp_path_factory.mktemp("ours")
        (ours / "nnunet-dml").symlink_to(quick / "nnunet-dml")
    run_bash(code, tmp_path, ours if page == FIRST else quick)
    made = re.findall(r"-o (tutorial/[\w./-]+)", code)
    assert made
    assert all((tmp_path / it).exists() for it in made)
