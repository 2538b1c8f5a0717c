"""`nnunet-dml predict`: `nnUNetv2_predict`, then calibration, then segmentations and probability maps."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from nnunet_dml.cli._arguments import check_device, whole_number
from nnunet_dml.cli.env import VARIABLE, plugin_path

HELP = "Predict with a trained model: calibrated probability maps (NIfTI) and segmentations."
_DEFAULTS = {
    "-tr": "nnUNetTrainer",
    "-p": "nnUNetPlans",
    "-device": "cuda",
    "-part_id": "0",
}  # nnU-Net's, as the next
_PROCESSES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Ours; everything else is nnU-Net's. They are read by `split`, because argparse would take -device for -d evice."""
    parser.usage = "nnunet-dml predict -i IN -o OUT (-m MODEL | -d DATASET -c CONFIGURATION …) [--bits 8|16] [--no-calibration] […]"
    parser.add_argument("-i", metavar="IN", help="folder of images, named as nnU-Net wants them")
    parser.add_argument(
        "-o", metavar="OUT", help="folder for the segmentations; probability maps go to OUT/probabilities"
    )
    parser.add_argument(
        "-m", metavar="MODEL", help="folder of a trained model; or -d, -c, -tr, -p as nnU-Net has them"
    )
    parser.add_argument("--bits", choices=("8", "16"), help="of the probability maps (default: 16)")
    parser.add_argument(
        "--no-calibration", action="store_true", help="leave the model's calibrator out, if it has one"
    )
    parser.epilog = (
        "All other arguments go to nnUNetv2_predict (with -m: nnUNetv2_predict_from_modelfolder) unchanged: -f, -chk, "
        "-device, --disable_tta, … After an interruption --continue_prediction goes on."
    )


def run(args: argparse.Namespace) -> None:
    """Predict with the arguments that `main` has kept."""
    predict(args.arguments)


def predict(arguments: Sequence[str]) -> None:
    """Run nnU-Net, calibrate, write.

    Args:
        arguments: Of the command.

    Raises:
        InputError: Bad arguments, no model, a bad calibrator, an output folder in use, no image.
    """
    import shutil

    from nnunet_dml._checks import InputError, problem
    from nnunet_dml.evaluation.calibrated import store
    from nnunet_dml.evaluation.calibrated.outputs import check, claim, describe_folder
    from nnunet_dml.evaluation.calibrated.prediction import finish
    from nnunet_dml.evaluation.dataset import label_set
    from nnunet_dml.evaluation.map_files import MAPS

    given, flags = split(arguments)
    processes = _processes(given)
    source, output = Path(given["-i"]), Path(given["-o"])
    if not source.is_dir():
        found = "a file" if source.exists() else "none"
        raise InputError(problem(f"-i {source}", expected="a folder of images", found=found))
    model = _model(given)
    labels = label_set(model)
    stored = None if flags["--no-calibration"] else store.read(model)
    calibrator = None
    if stored is not None:
        store.check_labels(stored, labels)
        calibrator = stored.final()
    check_device(given.get("-device", _DEFAULTS["-device"]))
    bits = int(given.get("--bits", "16"))
    record = {
        "model": str(model.resolve()),
        "calibrator": None if stored is None else stored.digest,
        "bits": bits,
        "source": str(source.resolve()),
    }
    check(output, record, inputs=source)
    _check_checkpoints(model, arguments)
    _check_images(source, labels.file_ending)
    part = given.get("-part_id", _DEFAULTS["-part_id"])
    staging = output.resolve().with_name(f".{output.resolve().name}.predicted-{part}")
    if not flags["--continue_prediction"] and staging.is_dir():
        shutil.rmtree(staging)
    _predict(arguments, staging, by_folder="-m" in given)
    if not any(staging.glob("*.npz")):
        shutil.rmtree(staging, ignore_errors=True)
        expected = f"images named as nnU-Net wants them (case_0000{labels.file_ending})"
        raise InputError(problem(source, expected=expected, found="none"))
    claim(output, record, inputs=source)
    done = finish(staging, output, labels, calibrator, bits=bits, processes=processes)
    describe_folder(output, staging)
    shutil.rmtree(staging)
    print(
        f"\nWritten: {output}, {len(done)} segmentations; {output / MAPS}, their probability maps ({bits} bit)"
    )
    if flags["--no-calibration"]:
        print("The probabilities are the model's own (--no-calibration).")
    elif stored is None:
        print(
            f"The probabilities are NOT calibrated: {model} has no calibrator. Fit one: `nnunet-dml calibrate fit`."
        )
    elif calibrator is not None and calibrator.keeps_argmax:
        print(f"Calibrated by {stored.method}; the segmentations are nnU-Net's own.")
    else:
        voxels = sum(it.voxels for it in done)
        changed = sum(it.changed for it in done)
        print(
            f"Calibrated by {stored.method if stored else ''}; it changed the label of {changed} of {voxels} voxels "
            f"({100 * changed / voxels:.2g} %), in {sum(it.changed > 0 for it in done)} of {len(done)} cases."
        )


def split(arguments: Sequence[str]) -> tuple[dict[str, str], dict[str, bool]]:
    """The options that this command reads, by name; flags apart.

    Raises:
        InputError: One lacks its value, has a wrong one, or is missing; or -m and -d are both given.
    """
    from nnunet_dml._checks import InputError, problem

    values = ("-i", "-o", "-m", "-d", "-c", "-tr", "-p", "-device", "-part_id", "-npp", "-nps", "--bits")
    given: dict[str, str] = {}
    for place, word in enumerate(arguments):
        if word in values:
            if place + 1 == len(arguments):
                raise InputError(problem(word, expected="a value behind it", found="none"))
            given[word] = arguments[place + 1]
    flags = {it: it in arguments for it in ("--no-calibration", "--continue_prediction")}
    flags["--continue_prediction"] |= "--c" in arguments
    for name, what in (("-i", "a folder of images"), ("-o", "a folder to write")):
        if name not in given:
            raise InputError(problem(name, expected=what, found="none"))
    if ("-m" in given) == ("-d" in given):
        expected, found = (
            "either a model's folder -m or a data set -d",
            "both" if "-m" in given else "neither",
        )
        raise InputError(problem("the model", expected=expected, found=found))
    if given.get("--bits", "16") not in ("8", "16"):
        raise InputError(problem("--bits", expected="8 or 16", found=given["--bits"]))
    return given, flags


def _processes(given: dict[str, str]) -> int:
    """How many write the results: as nnU-Net takes it, which looks at its variables with -d alone."""
    from nnunet_dml._checks import InputError, problem

    def number(option: str, variable: str) -> int | None:
        if option in given:
            return whole_number(given[option])
        found = whole_number(os.environ.get(variable, "")) if "-d" in given else None
        return _PROCESSES if found is None else found

    saving = number("-nps", "nnUNet_nps")
    if saving is None or (saving == 0 and (number("-npp", "nnUNet_npp") != 0 or "-m" in given)):
        expected = "at least 1 process (0 only with -npp 0 and -d: one after the other)"
        where = "-nps" if "-nps" in given else "nnUNet_nps"
        raise InputError(problem(where, expected=expected, found=given.get("-nps", "0")))
    return saving or 1


def _model(given: dict[str, str]) -> Path:
    """The model's folder."""
    from nnunet_dml._checks import InputError, problem

    if "-m" in given:
        model = Path(given["-m"])
    else:
        from nnunet_dml.nnunet.stock_commands import results_folder

        if "-c" not in given:
            raise InputError(problem("-c", expected="a configuration, with -d", found="none"))
        trainer, plans = (given.get(name, _DEFAULTS[name]) for name in ("-tr", "-p"))
        model = results_folder(given["-d"], trainer, plans, given["-c"])
    if not model.is_dir():
        found = "a file" if model.exists() else "none"
        raise InputError(problem(model, expected="a trained model's folder", found=found))
    return model


def _check_checkpoints(model: Path, arguments: Sequence[str]) -> None:
    """Refuse missing and damaged weights, and files that hold code, before nnU-Net reads them."""
    from nnunet_dml._checks import InputError, problem
    from nnunet_dml.nnunet.checkpoints import FINAL, load_checkpoint

    words: dict[str, list[str]] = {"-f": ["0", "1", "2", "3", "4"], "-chk": [FINAL]}  # nnU-Net's defaults
    option = ""
    for word in arguments:
        if re.match("-[a-zA-Z-]", word):
            option = word
            if option in words:
                words[option] = []
        elif option in words:
            words[option].append(word)
    problems: list[str] = []
    for path in (model / f"fold_{fold}" / name for fold in words["-f"] for name in words["-chk"]):
        todo = "Restore the file, train the fold again, or leave it out (-f)."
        try:
            if not path.is_file():
                raise InputError(problem(path, expected="a checkpoint", found="no file", todo=todo))
            load_checkpoint(path, todo=todo)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)


def _check_images(source: Path, ending: str) -> None:
    """Refuse missing and truncated images, all together: nnU-Net's reader takes truncated ones for whole."""
    from nnunet_dml._checks import InputError
    from nnunet_dml._images import check_whole

    problems: list[str] = []
    for path in sorted(source.iterdir()):
        if path.name.endswith(ending) and not path.name.startswith("."):
            try:
                check_whole(path)
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(*problems)


def _predict(arguments: Sequence[str], staging: Path, *, by_folder: bool) -> None:
    """Run nnU-Net's command in this process, with our own arguments taken out and another output."""
    os.environ[VARIABLE] = plugin_path()
    from nnunet_dml.nnunet.stock_commands import nnunetv2_predict

    handed, words = [], iter(arguments)
    for word in words:
        if word == "--bits":
            next(words)
        elif word == "-o":
            next(words)
            handed += ["-o", str(staging)]
        elif word not in ("--no-calibration", "--save_probabilities"):
            handed.append(word)
    nnunetv2_predict([*handed, "--save_probabilities"], by_folder=by_folder)
