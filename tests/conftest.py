"""What tests of several rooms share: a phantom data set, taken once through nnU-Net's preprocessing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest

from tests import preloaded

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one takes seconds for an import
hypothesis.settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
DATASET = "Dataset901_Phantom"
TINY = {"training": {"epochs": 2, "iterations": 2, "val_iterations": 1, "seed": 0, "save_every": 1}}


def pytest_collection_modifyitems(config, items):
    """Tests on real data are skipped where the data are absent; of several processes, none ends with a long file."""
    skip = pytest.mark.skip(
        reason=f"needs the real data sets in {DATA.parent.name}/{DATA.name} beside the repository"
    )
    for item in items:
        if item.get_closest_marker("data") and not DATA.is_dir():
            item.add_marker(skip)
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets."""
    return DATA


@pytest.fixture(scope="session")
def make_phantom():
    """The phantom maker of `scripts/`."""
    spec = importlib.util.spec_from_file_location("make_phantom", ROOT / "scripts" / "make_phantom.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_phantom


def run(*command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with this Python's scripts on the path; its output is shown if it fails.

    nnU-Net's and ours are forked from a process that has imported PyTorch; `sys.executable -m` starts one that has not.
    """
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    if command[0] in preloaded.NAMES:
        path.insert(0, str(preloaded.quick_commands()))
    env = {**os.environ, "PATH": os.pathsep.join(path), **environment}
    env.setdefault("PYTHONPATH", str(ROOT))
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=env, check=False
    )
    if check and done.returncode != 0:
        pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def nnunet_dml(*arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `nnunet-dml` as a user does."""
    return run("nnunet-dml", *arguments, check=check, **environment)


def set_folders(patch: pytest.MonkeyPatch, base: Path) -> SimpleNamespace:
    """Point nnU-Net's variables into `base`."""
    folders = {}
    for name in ("raw", "preprocessed", "results"):
        folders[name] = base / name
        folders[name].mkdir(exist_ok=True)
        patch.setenv(f"nnUNet_{name}", str(folders[name]))
    patch.setenv("nnUNet_n_proc_DA", "0")
    patch.setenv("nnUNet_def_n_proc", "1")  # each worker process imports torch
    patch.setenv("nnUNet_extTrainer", str(ROOT / "nnunet_dml" / "plugin"))
    return SimpleNamespace(**folders)


def plan_and_preprocess(dataset: str, configuration: str) -> None:
    """nnU-Net's own command."""
    n_proc = {k: v for k, v in os.environ.items() if k == "nnUNet_n_proc_DA"}
    os.environ.pop("nnUNet_n_proc_DA", None)  # 0 crashes preprocessing
    try:
        run(
            "nnUNetv2_plan_and_preprocess",
            "-d",
            dataset,
            "-c",
            configuration,
            "--verify_dataset_integrity",
            "-npfp",
            "1",
            "-np",
            "1",
        )
    finally:
        os.environ.update(n_proc)


def train_tiny(
    dataset: str, configuration: str, *more: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Train fold 0 by nnU-Net's own command with the plans `tiny`, on soft labels."""
    command = f"nnUNetv2_train {dataset} {configuration} 0 -tr nnUNetTrainerDML -p tiny --npz -device cpu"
    return run(*command.split(), *more, check=check)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory, make_phantom):
    """A converted and preprocessed phantom: 10 cases of 48 × 48, 3 raters; plans `tiny`, `tiny_uniform`.

    Returns:
        raw, preprocessed, results: nnU-Net's folders; source: the phantom as a challenge would give it.
    """
    base = tmp_path_factory.mktemp("phantom")
    with pytest.MonkeyPatch.context() as patch:
        folders = set_folders(patch, base)
        folders.source = base / "source"
        make_phantom(folders.source, cases=10, raters=3, size=48)
        nnunet_dml(
            "convert",
            "raters",
            folders.source,
            "--dataset",
            "901_Phantom",
            "--layout",
            "qubiq",
            "--task",
            "1",
        )
        plan_and_preprocess("901", "2d")
        nnunet_dml("preprocess", "-d", "901", "-c", "2d", "--fusion", "weighted", "uniform")
        tiny = [f"training.{key}={value}" for key, value in TINY["training"].items()]
        for name, more in (
            ("tiny", []),
            ("tiny_uniform", ["labels.source=uniform"]),
            ("tiny_hard", ["labels.source=hard"]),
        ):
            nnunet_dml(
                "configure",
                "-d",
                "901",
                "-o",
                name,
                "--scale-features",
                "0.125",
                "--batch-size",
                "2",
                "--set",
                *tiny,
                *more,
            )
        yield folders


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """nnU-Net's variables point into a temporary folder."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    return tmp_path
