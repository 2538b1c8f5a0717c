"""Nothing runs code from a file that the user did not name as a model.

Read by this package's own code are: JSON, YAML (`safe_load`), images, `.npz` (`allow_pickle=False`), blosc2's frames,
SQLite, checkpoints (`weights_only=True`) and nnU-Net's `.pkl` of preprocessed cases, of which `plain_pickles` takes data
only. nnU-Net's `.pkl` beside predictions are copied, never read. No archive is unpacked.
"""

from __future__ import annotations

import ast
import hashlib
import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import nnunet_dml
from tests.robustness import damage as by

ROOT = Path(nnunet_dml.__file__).parent
MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "runpy",
    "code",
    "pydoc",
    "imp",
}
CALLS = {
    "numpy.load", "numpy.fromfile", "torch.load", "torch.jit.load", "torch.hub.load", "pandas.read_pickle", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.safe_load", "eval", "exec", "compile", "__import__",
    "importlib.import_module", "importlib.util.spec_from_file_location", "os.system", "os.popen", "shutil.unpack_archive",
    "batchgenerators.utilities.file_and_folder_operations.load_pickle", "blosc2.unpack", "blosc2.unpack_array",
}  # fmt: skip
METHODS = {"extract", "extractall"}
SAFE = {"numpy.load": ("allow_pickle", False), "torch.load": ("weights_only", True)}
ALLOWED = {
    ("cli/main.py", "importlib.import_module"): "the commands' own modules, by the names in COMMANDS",
    ("benchmark/grid.py", "yaml.safe_load"): "makes plain values only",
    (
        "nnunet/plain_pickles.py",
        "pickle.Unpickler",
    ): "takes numbers, texts, containers and NumPy's arrays only",
    ("nnunet/plain_pickles.py", "pickle.UnpicklingError"): "the refusal",
    (
        "nnunet/trainers/networks.py",
        "pydoc.locate",
    ): "the class of a network by its name in the plans of a training, as nnU-Net",
    (
        "nnunet/checkpoints.py",
        "torch.load",
    ): "before torch 2.6, of a model that the user named: see _plain_content",
}


def references(tree: ast.Module) -> list[tuple[str, ast.AST]]:
    """Everything dangerous that a module mentions, by its full name; of calls the node has the arguments."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                (it.asname or it.name).split(".")[0]: (it.name if it.asname else it.name.split(".")[0])
                for it in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            names |= {it.asname or it.name: f"{node.module}.{it.name}" for it in node.names}

    def full(node: ast.AST) -> str:
        if isinstance(node, ast.Name):
            return names.get(node.id, node.id)
        return f"{full(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"

    found: list[tuple[str, ast.AST]] = []
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            name = full(node)
            if name in CALLS or name.split(".")[0] in MODULES - {name} or name.split(".")[-1] in METHODS:
                found.append((name, called.get(id(node), node)))
    return found


def is_safe(name: str, node: ast.AST) -> bool:
    """Whether a call has the argument that makes it safe."""
    key, value = SAFE.get(name, (None, None))
    given = {it.arg: it.value for it in node.keywords} if isinstance(node, ast.Call) else {}
    return key in given and isinstance(given[key], ast.Constant) and given[key].value is value


def test_every_call_that_could_run_code_is_safe_or_has_a_reason():
    used, unsafe = set(), []
    for path in sorted(ROOT.rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        for name, node in references(ast.parse(path.read_text(encoding="utf-8"))):
            if is_safe(name, node):
                continue
            used.add((where, name))
            if (where, name) not in ALLOWED:
                unsafe.append(f"{where}:{node.lineno}: {name}")
    assert not unsafe
    assert used == set(ALLOWED), "a reason for something that is gone"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle\npickle.loads(b'')", "from pickle import load as it\nit(file)", "import numpy as np\nnp.load(path)",
        "import torch\ntorch.load(path, weights_only=False)", "eval('1')", "archive.extractall(folder)",
        "import numpy\nnumpy.load(path, allow_pickle=True)", "import yaml\nyaml.load(text, yaml.Loader)",
        "import pickle\nclass Reader(pickle.Unpickler): ...", "import numpy as np\nread = np.load",
    ],
)  # fmt: skip
def test_the_walk_sees(line):
    found = references(ast.parse(line))
    assert found
    assert not any(is_safe(*it) for it in found)


def test_the_walk_takes_what_is_safe():
    text = "import numpy as np, torch\nnp.load(path, allow_pickle=False)\ntorch.load(path, weights_only=True)"
    assert [is_safe(*it) for it in references(ast.parse(text))] == [True, True]


# -- what is read of nnU-Net's pickles


PROPERTIES = {
    "spacing": [1.0, np.float64(2.5)],
    "sitk_stuff": {"spacing": (1.0, 2.5), "origin": (0.0, 0.0), "direction": (1.0, 0.0, 0.0, 1.0)},
    "shape_before_cropping": (1, 4, 5),
    "bbox_used_for_cropping": [[0, 1], [np.int64(0), 4], [0, 5]],
    "class_locations": {1: np.arange(8).reshape(2, 4), (1, 2): np.empty((0, 4), np.int64)},
    "nibabel_stuff": {"original_affine": np.eye(4, dtype=np.float32, order="F")},
}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_properties_of_nnunet_are_read_as_they_are(tmp_path, protocol):
    from nnunet_dml.nnunet.plain_pickles import read_properties

    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(PROPERTIES, protocol))
    np.testing.assert_equal(read_properties(path), PROPERTIES)


@pytest.mark.parametrize(
    "bad",
    [
        by.Bomb(),
        {"spacing": [by.Bomb()]},
        np.array([by.Bomb()], dtype=object),
        Path("a"),
        print,
        SimpleNamespace(),
    ],
)
def test_other_pickles_are_refused_before_they_act(tmp_path, monkeypatch, bad):
    from nnunet_dml.nnunet.plain_pickles import read_properties

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(bad))
    with pytest.raises(pickle.UnpicklingError, match="which is no data"):
        read_properties(path)
    assert not Path("exploded").exists()


# -- a bomb in every kind of file that can hold one; further ones are in the corpus of damaged files


def test_a_calibrator_whose_sum_was_set_right(called):
    call = called("calibrate apply")
    store = next((call.root / "results").rglob("nnunet_dml_calibration"))
    np.savez(store / "calibrator.npz", method=np.array([by.Bomb()], dtype=object))
    record = json.loads((store / "calibration.json").read_text())
    record["files"]["calibrator.npz"] = hashlib.sha256((store / "calibrator.npz").read_bytes()).hexdigest()
    (store / "calibration.json").write_text(json.dumps(record))
    assert call() == 2
    assert not Path("exploded").exists()


def test_the_record_of_an_unlabelled_case(tmp_path, monkeypatch):
    from nnunet_dml.nnunet.unlabelled import why_not_current

    monkeypatch.chdir(tmp_path)
    Path("a.pkl").write_bytes(pickle.dumps({"nnunet_dml": by.Bomb()}))
    assert why_not_current(tmp_path, "a", {}, None, whole=True) == "damaged"
    assert not Path("exploded").exists()


def test_a_checkpoint_that_training_goes_on_from(tmp_path, monkeypatch, capsys):
    """`nnUNetv2_train … --c`: upstream's own reading would run it."""
    from nnunet_dml.nnunet.trainers import nnUNetTrainerConfigured
    from tests.nnunet.export_helpers import change_checkpoint, make_model

    monkeypatch.chdir(tmp_path)
    model = make_model(tmp_path)
    change_checkpoint(model, extra=by.Bomb())
    path = model / "fold_0" / "checkpoint_final.pth"
    with pytest.raises(SystemExit) as caught:
        nnUNetTrainerConfigured.load_checkpoint(SimpleNamespace(), str(path))
    assert caught.value.code == 2
    assert f"{path}: expected a checkpoint of weights and plain values" in capsys.readouterr().err
    assert not Path("exploded").exists()


def test_a_checkpoint_with_what_nnunet_keeps_in_it(tmp_path):
    """NumPy's scalars in the log and the figure of merit, tuples, devices: nothing of it is refused."""
    from nnunet_dml.nnunet.checkpoints import load_checkpoint
    from tests.nnunet.export_helpers import change_checkpoint, make_model

    log = {
        "ema_fg_dice": [np.float64(0.5)],
        "train_losses": [np.float32(1.5)],
        "dice_per_class_or_region": [[np.float64(0.25), np.float16(0.5)]],
        "epoch_start_timestamps": [1.7e9],
        "counts": [np.int64(3), np.bool_(True), np.arange(3.0)],
    }
    model = make_model(tmp_path)
    change_checkpoint(model, logging=log, _best_ema=np.float64(0.75))
    content = load_checkpoint(model / "fold_0" / "checkpoint_final.pth", todo="")
    np.testing.assert_equal(content["logging"], log)
    assert content["_best_ema"] == 0.75


def test_predictions_that_nnunet_keeps_properties_of(called):
    """The `.pkl` beside an `.npz` is nnU-Net's own, for its ensembling: it goes along unread."""
    call = called("calibrate apply")
    bomb = pickle.dumps(by.Bomb())
    (call.root / "predicted" / "a.pkl").write_bytes(bomb)
    assert call() == 0
    assert (call.root / "out" / "a.pkl").read_bytes() == bomb
    assert not Path("exploded").exists()


def test_postprocessing_goes_into_the_zip_unread(called):
    call = called("export")
    model = next((call.root / "results").rglob("plans.json")).parent
    (model / "postprocessing.pkl").write_bytes(pickle.dumps(by.Bomb()))
    assert call() == 0
    assert not Path("exploded").exists()


def test_a_prediction_in_a_report_is_noted(called):
    call = called("report")
    record = json.loads((call.root / "first/cases/case000.json").read_text())
    by.objects(Path(record["sources"]["prediction"]))
    assert call() == 0
    assert not Path("exploded").exists()
