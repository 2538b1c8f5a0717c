"""The tutorials' commands really run, as a reader's would: in an empty folder. Only the trainings are shorter.

The first's are the installed commands themselves, with their start and with nnU-Net's worker processes, one of each
kind; the others' are forked from a process that has imported PyTorch already (`tests.preloaded`).
"""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import blocks, run_bash, script

TUTORIALS = sorted({it.page for it in blocks("bash") if it.page.startswith("docs/tutorials/")})
ITSELF = "docs/tutorials/first-model.md"
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
def test_a_tutorial_runs(page, request, tmp_path):
    code = script(page)
    for pattern, short in SHORT:
        code, count = re.subn(pattern, short, code)
        assert count, f"{page} has no {pattern}"
    first = [] if page == ITSELF else [request.getfixturevalue("quick")]
    run_bash(code, tmp_path, *first)
    made = re.findall(r"-o (tutorial/[\w./-]+)", code)
    assert made
    assert all((tmp_path / it).exists() for it in made)
