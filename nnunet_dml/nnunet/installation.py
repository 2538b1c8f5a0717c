"""Checks of what is installed and of the environment: folders, processes, versions, the search for trainers.

nnU-Net is imported late: some values of its variables end in a traceback as soon as it is imported.
"""

from __future__ import annotations

import io
import os
import platform
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
DISTRIBUTION = "nnunet-dml"
PACKAGES = ("nnunetv2", "torch", "batchgenerators", "batchgeneratorsv2", "blosc2", "SimpleITK")


def check_folders() -> list[Finding]:
    """nnU-Net's three folders: set, there, writable."""
    found = []
    for variable in VARIABLES:
        results = variable == "nnUNet_results"
        try:
            folder = environment_folder(variable, must_exist=not results)
        except InputError as error:
            found += wrong(variable, error)
            continue
        if not folder.exists():
            found.append(Finding("note", variable, f"{folder}: no such folder yet; nnU-Net makes it."))
        elif not folder.is_dir():
            text = f"{folder}: expected a folder, found a file. Export another one."
            found.append(Finding("wrong", variable, text))
        elif os.access(folder, os.W_OK | os.X_OK):
            found.append(Finding("ok", variable, str(folder)))
        elif variable == "nnUNet_raw":
            text = f"{folder}: not writable; that is enough for training, not for converting."
            found.append(Finding("note", variable, text))
        else:
            text = f"{folder}: expected a folder to write to, found no permission. Change its permissions."
            found.append(Finding("wrong", variable, text))
    return found


def check_processes() -> list[Finding]:
    """The numbers of worker processes; a wrong one means that nnU-Net cannot even be imported."""
    found, cpus = [], os.cpu_count() or 1
    for variable, least, default, meaning in (
        ("nnUNet_def_n_proc", 1, 8, "preprocessing and prediction"),
        ("nnUNet_n_proc_DA", 0, min(12, cpus), "augmentation in training"),
    ):
        text = os.environ.get(variable)
        if text is None:
            found.append(Finding("ok", variable, f"unset: nnU-Net's default, {default} for {meaning}"))
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
            advice = f"{text} for {meaning}, more than the {cpus} CPUs here. Export a smaller number."
            found.append(Finding("note", variable, advice))
        else:
            found.append(Finding("ok", variable, f"{text} for {meaning} ({cpus} CPUs here)"))
    return found


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
    todo = 'Run `eval "$(nnunet-dml env)"`.'
    what = "unset" if value is None else value or "empty"
    if broken:
        todo = f"Mend or remove the module in {some(folders)} that cannot be imported{broken}."
    elif missing and any(Path(path).resolve() == PLUGIN for path in folders):
        todo = "Reinstall nnunet-dml."
    if missing:
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
