"""Checks of what is installed and of the environment: folders, processes, versions, the search for trainers.

nnU-Net is imported late: some values of its variables end in a traceback as soon as it is imported.
"""

from __future__ import annotations

import io
import os
import platform
import shlex
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import nnunet_dml
from nnunet_dml._checks import InputError, some
from nnunet_dml._folders import PLUGIN, VARIABLES, environment_folder
from nnunet_dml.nnunet.findings import Finding, wrong

TRAINERS = "nnUNet_extTrainer"
MADE_BY = {
    "nnUNet_raw": "`nnunet-dml convert`",
    "nnUNet_preprocessed": "`nnUNetv2_plan_and_preprocess`",
    "nnUNet_results": "training",
}
DISTRIBUTION = "nnunet-dml"
PACKAGES = ("nnunetv2", "torch", "batchgenerators", "batchgeneratorsv2", "blosc2", "SimpleITK")


def check_folders() -> list[Finding]:
    """nnU-Net's three folders: set, there or possible to make, writable."""
    return [finding for variable in VARIABLES for finding in _check_folder(variable)]


def _check_folder(variable: str) -> list[Finding]:
    try:
        folder = environment_folder(variable, must_exist=False)
    except InputError as error:
        return wrong(variable, error)
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        text = f"{folder}: expected a folder, found something else at {there}. Export another one."
        return [Finding("wrong", variable, text)]
    writable = os.access(there, os.W_OK | os.X_OK)
    if there == folder and writable:
        return [Finding("ok", variable, str(folder))]
    if writable:
        text = (
            f"{folder}: not made yet; {MADE_BY[variable]} makes it, or `mkdir -p {shlex.quote(str(folder))}`."
        )
        return [Finding("note", variable, text)]
    if there == folder and variable == "nnUNet_raw":
        text = f"{folder}: not writable; that is enough for training, not for converting."
        return [Finding("note", variable, text)]
    text = f"{folder}: expected a folder to write to, found no permission at {there}. Change its permissions."
    return [Finding("wrong", variable, text)]


def usable_cpus() -> int:
    """How many CPUs this process may use: on a cluster fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_processes() -> list[Finding]:
    """The numbers of worker processes; a wrong one means that nnU-Net cannot even be imported."""
    cpus = usable_cpus()
    found = []
    for variable, least, default, meaning in (
        ("nnUNet_def_n_proc", 1, 8, "preprocessing and prediction"),
        ("nnUNet_n_proc_DA", 0, min(12, os.cpu_count() or 1), "augmentation in training"),
    ):
        text = os.environ.get(variable)
        if text is None:
            found.append(_default_processes(variable, default, meaning, cpus))
        elif not text.isdecimal() or int(text) < least:
            advice = f"expected a whole number of at least {least}, found {text!r}. Export another one, or unset {variable}."
            found.append(Finding("wrong", variable, advice))
        elif text == "0":
            advice = (
                "0: training augments in its own process, which is fine; nnUNetv2_plan_and_preprocess and "
                f"nnUNetv2_preprocess crash. `unset {variable}` before them."
            )
            found.append(Finding("note", variable, advice))
        elif int(text) > cpus and variable == "nnUNet_def_n_proc":
            advice = (
                f"{text} for {meaning}, more than the {_count(cpus)} here. Run `export {variable}={cpus}`."
            )
            found.append(Finding("note", variable, advice))
        else:
            found.append(Finding("ok", variable, f"{text} for {meaning} ({_count(cpus)} here)"))
    return found


def _default_processes(variable: str, default: int, meaning: str, cpus: int) -> Finding:
    """What an unset variable means: too much where twice as many processes run as there are CPUs."""
    training = variable == "nnUNet_n_proc_DA"
    # a training itself, and half as many workers for validation, which nnU-Net runs beside those
    running = default + max(1, default // 2) + 1 if training else default
    text = f"unset: nnU-Net's default, {default} for {meaning}"
    if running < 2 * cpus:
        return Finding("ok", variable, text)
    todo = f"Run `export {variable}={cpus}`."
    if training and cpus <= 2:
        todo = f"Put `{variable}=0` in front of nnUNetv2_train only: nnU-Net's preprocessing crashes by it."
    all_in_all = f" ({running} processes in all)" if training else ""
    return Finding("note", variable, f"{text}{all_in_all} on {_count(cpus)} here. {todo}")


def _count(cpus: int) -> str:
    return f"{cpus} CPU{'s' * (cpus > 1)}"


def check_versions() -> list[Finding]:
    """The versions of Python and packages against what this package's metadata asks for."""
    try:
        required = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or ()]
        supported = {
            it.name: it.specifier for it in required if not it.marker or it.marker.evaluate({"extra": ""})
        }
        supported["python"] = SpecifierSet(metadata.metadata(DISTRIBUTION)["Requires-Python"] or "")
        found = [Finding("ok", DISTRIBUTION, nnunet_dml.__version__)]
    except metadata.PackageNotFoundError:
        supported = {}
        text = f"{nnunet_dml.__version__}, run from its source folder: which versions it supports is not checked. `pip install .` installs it."
        found = [Finding("note", DISTRIBUTION, text)]
    found.append(_version("python", platform.python_version(), supported))
    for name in PACKAGES:
        try:
            found.append(_version(name, metadata.version(name), supported))
        except metadata.PackageNotFoundError:
            found.append(Finding("wrong", name, f"not installed. Run `pip install {name}`."))
    return found


def _version(name: str, version: str, supported: dict[str, SpecifierSet]) -> Finding:
    wanted = supported.get(name, SpecifierSet())
    if wanted.contains(version, prereleases=True):
        return Finding("ok", name, f"{version} (supported: {wanted})" if str(wanted) else version)
    todo = "Use another Python." if name == "python" else f"Run `pip install '{name}{wanted}'`."
    return Finding("wrong", name, f"expected {wanted}, found {version}. {todo}")


def check_device() -> Finding:
    """What a training would run on."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("ok", "device", f"CUDA: {some(names)}")
    if torch.backends.mps.is_available():
        return Finding("ok", "device", "Apple's MPS; give nnU-Net's commands `-device mps`")
    return Finding("ok", "device", "CPU only; give nnU-Net's commands `-device cpu`")


def check_trainers() -> list[Finding]:
    """Whether nnU-Net's own search finds every trainer of this package, with the environment as it is."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunet_dml.nnunet import trainers

    value = os.environ.get(TRAINERS)
    folders = [path for path in (value or "").split(os.pathsep) if path.strip()]
    missing, others, broken = [], [], ""
    for name in trainers.__all__:
        with redirect_stdout(io.StringIO()):  # it tells all that it does
            try:
                found = recursive_find_trainer_class_by_name(name)
            except RuntimeError:
                missing.append(name)
            except Exception as error:  # it imports all that lies in the user's folders
                missing.append(name)
                broken = f" ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
            else:
                if found is not getattr(trainers, name):
                    others.append(name)
    todo, installed = 'Run `eval "$(nnunet-dml env)"`.', any(Path(it).resolve() == PLUGIN for it in folders)
    what = "unset" if value is None else value or "empty"
    if broken:
        todo = f"Mend or remove the module in {some(folders)} that cannot be imported{broken}."
    elif missing and installed:
        todo = "Reinstall nnunet-dml."
    if missing and not (broken or installed):
        text = (
            f"{what}: nnunet-dml's own commands find its trainers, `nnunet-dml train` among them; nnU-Net's don't. "
            f"Before nnUNetv2_train or nnUNetv2_predict: {todo[0].lower()}{todo[1:]}"
        )
        rows = [Finding("note", TRAINERS, text)]
    elif missing:
        which = "any trainer of this package" if len(missing) == len(trainers.__all__) else some(missing)
        text = f"{what}: nnU-Net does not find {which}. {todo}"
        rows = [Finding("wrong", TRAINERS, text)]
    elif others:
        text = f"{what}: nnU-Net finds other trainers of the names {some(others)} than this package's. {todo}"
        rows = [Finding("wrong", TRAINERS, text)]
    else:
        rows = [Finding("ok", TRAINERS, f"{what}: nnU-Net finds all {len(trainers.__all__)} trainers")]
    gone = [path for path in folders if not Path(path).is_dir()]
    if gone:
        rows.append(Finding("note", TRAINERS, f"no such folder: {some(gone)}. Take it out of the variable."))
    return rows


def examine() -> tuple[list[Finding], bool]:
    """All checks of the installation.

    Returns:
        The findings, and whether nnU-Net can be imported at all.
    """
    found = [*check_folders(), *(processes := check_processes()), *check_versions()]
    if any(it.level == "wrong" for it in processes):
        return found, False
    try:
        return [*found, check_device(), *check_trainers()], True
    except Exception as error:  # a package that is missing, too old or damaged
        said = str(error).splitlines()[0] if str(error) else ""
        text = f"cannot be imported ({type(error).__name__}: {said}). Run `pip install --force-reinstall nnunet-dml`."
        return [*found, Finding("wrong", "nnunetv2", text)], False
