"""README's commands, really run on the phantom as data set 501.

Other than a reader's: the training is of two iterations of a narrow network, without a GPU and in one process. Only
parsed, as `test_shell_blocks` does with all blocks, are the commands of `ONLY_PARSED`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.pages import TOGETHER, blocks

ONLY_PARSED = (r"bash scripts/(demo|test)\.sh.*",)  # an installation and all tests
CHANGED = (
    (r" +#.*", ""),
    (r"export nnUNet_raw=\S+ nnUNet_preprocessed=\S+ nnUNet_results=\S+", ""),  # BEFORE has them
    (r" SRC ", " phantom "),
    (  # which 0 processes crash
        r"nnUNetv2_plan_and_preprocess .*",
        r"env -u nnUNet_n_proc_DA \g<0> -npfp 1 -np 1\npython shorten.py",
    ),
    (r"nnUNetv2_train .*", r"\g<0> -device cpu"),
    (r"nnunet-dml report .*", r"\g<0> --resamples 100"),
)
BEFORE = """
python scripts/make_phantom.py phantom --cases 10 --raters 3 --size 64
for name in raw preprocessed results; do export nnUNet_$name="$PWD/nnUNet_$name"; mkdir -p "nnUNet_$name"; done
export nnUNet_def_n_proc=1 nnUNet_n_proc_DA=0
"""
SHORTEN = """
import json
path = "nnUNet_preprocessed/Dataset501_BrainGrowth/nnUNetPlans.json"
plans = json.load(open(path))
here = plans["configurations"]["2d"]
here["batch_size"] = 2
arguments = here["architecture"]["arch_kwargs"]
arguments["features_per_stage"] = [4 for _ in arguments["features_per_stage"]]
plans["nnunet_dml"] = {"training": {"epochs": 1, "iterations": 2, "val_iterations": 1}}
json.dump(plans, open(path, "w"))
"""


def script(page: str) -> str:
    """A page's commands as they run here."""
    code = "".join(it.code for it in blocks("bash") if it.page == page and it.kind == "together")
    for pattern in ONLY_PARSED:
        code = re.sub(rf"^{pattern}$", "", code, flags=re.MULTILINE)
    for pattern, short in CHANGED:
        assert re.search(pattern, code), pattern
        code = re.sub(pattern, short, code)
    return code


@pytest.mark.slow
@pytest.mark.parametrize("page", TOGETHER)
def test_a_page_runs(page, tmp_path):
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "shorten.py").write_text(SHORTEN)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
    done = subprocess.run(
        ["bash", "-exuo", "pipefail", "-c", BEFORE + script(page)],
        cwd=tmp_path,
        env={**kept, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert (tmp_path / "evaluations/soft/summary.json").is_file()
    assert (tmp_path / "report.html").is_file()
