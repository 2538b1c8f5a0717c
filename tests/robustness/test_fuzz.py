"""Files of our own with anything at any place: a reader takes them or says in one line what is wrong.

1100 files: Hypothesis puts a value of another kind at any place of a JSON file (or of YAML, which JSON is), or other bytes
at any place of a binary one.
"""

from __future__ import annotations

import copy
import json
import shutil
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from nnunet_dml._checks import InputError
from nnunet_dml._files import read_splits
from nnunet_dml.benchmark.grid import read_grid
from nnunet_dml.cli.main import main
from nnunet_dml.evaluation.calibrated import store
from nnunet_dml.evaluation.dataset import read_dataset
from nnunet_dml.evaluation.probability_files import read_probabilities
from nnunet_dml.labels.storage import DamagedSoftMapError, open_soft_map, save_soft_map, verify_soft_map
from nnunet_dml.nnunet import options
from tests.cli.calibration_world import World
from tests.report.evaluation_world import write_evaluation
from tests.robustness.worlds import COMMANDS

EXAMPLES = 100
pytestmark = pytest.mark.filterwarnings("ignore")  # NumPy warns of what it reads
often = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from(
        [0, -1, 2**70, 1e400, -1e400, float("nan"), 0.5, "", "a", "../../x", "1", "\x00", "ü" * 300]
    )
)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=2)
    | st.dictionaries(st.sampled_from(["a", "0"]), SCALARS, max_size=2)
)


@st.composite
def changes(draw):
    """A function that puts a value at a place of a JSON value, drops what is there, or adds a key."""
    steps, value = draw(st.lists(st.integers(0, 30), max_size=5)), draw(VALUES)
    how = draw(st.sampled_from(["put", "drop", "add"]))
    note(f"{how} at {steps}: {value!r}")

    def change(content):
        content = copy.deepcopy(content)
        place = content
        for step in steps:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = keys[step % len(keys)]
            if step == steps[-1] or not isinstance(place[key], dict | list):
                if how == "drop":
                    del place[key]
                elif how == "add" and isinstance(place, dict):
                    place["another"] = value
                else:
                    place[key] = value
                return content
            place = place[key]
        return value if how == "put" else content

    return change


@st.composite
def spoils(draw):
    """A function that changes bytes: some of them, the length, or what stands in the middle."""
    place, byte = draw(st.floats(0, 1)), draw(st.integers(1, 255))
    how = draw(st.sampled_from(["flip", "cut", "insert", "repeat", "zero"]))
    length = draw(st.integers(1, 64))
    note(f"{how} at {place}: {byte}, {length}")

    def spoil(content: bytes) -> bytes:
        k = int(place * (len(content) - 1))
        return {
            "flip": content[:k] + bytes([content[k] ^ byte]) + content[k + 1 :],
            "cut": content[:k],
            "insert": content[:k] + bytes([byte]) * length + content[k:],
            "repeat": content[:k] + content[max(0, k - length) :],
            "zero": content[:k] + bytes(length) + content[k + length :],
        }[how]

    return spoil


def accepted_or_said(read, *arguments, errors=InputError):
    """Nothing but the error that is meant for users may come out; each problem in a line of its own."""
    try:
        read(*arguments)
    except errors as error:
        for line in getattr(error, "problems", [str(error)]):
            assert line.strip()
            assert "\n" not in line


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A calibrated model."""
    root = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(root / "raw"))
        world = World(root, folds=3, per_fold=1)
        assert main(["calibrate", "fit", str(world.model), "--method", "temperature", "-np", "1"]) == 0
    return world


@often
@given(change=changes())
def test_a_calibrators_record(fitted, change):
    path = fitted.model / store.FOLDER / store.RECORD
    whole = path.read_text()
    try:
        path.write_text(json.dumps(change(json.loads(whole))))
        accepted_or_said(store.read, fitted.model)
    finally:
        path.write_text(whole)


@often
@given(spoil=spoils())
def test_a_calibrators_arrays(fitted, spoil):
    path = fitted.model / store.FOLDER / "calibrator.npz"
    whole = path.read_bytes()

    def read():
        stored = store.read(fitted.model)
        assert stored is not None
        stored.final()

    try:
        path.write_bytes(spoil(whole))
        accepted_or_said(read)
    finally:
        path.write_bytes(whole)


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluations")
    return [write_evaluation(root / name, cases=3) for name in ("first", "second")]


@pytest.mark.parametrize("name", ["summary.json", "cases/case001.json"])
@often
@given(change=changes())
def test_an_evaluation(evaluations, capsys, name, change):
    """Through `compare`, which reads and uses all of it."""
    path = evaluations[0] / name
    whole = path.read_text()
    try:
        path.write_text(json.dumps(change(json.loads(whole))))
        status = main(["compare", *map(str, evaluations), "--resamples", "20"])
        said = capsys.readouterr().err
        assert status in (0, 2), said
        assert (status == 2) == bool([it for it in said.splitlines() if it.startswith("nnunet-dml")])
    finally:
        path.write_text(whole)


@often
@given(change=changes())
def test_the_block_of_options(change):
    whole = {
        "loss": {"overlap": "dml", "weight_ce": 1.0, "deep_supervision": False},
        "labels": {"source": "weighted", "smoothing": "none"},
        "training": {"epochs": 5, "seed": 3, "bfloat16": "auto"},
    }
    accepted_or_said(lambda: options.parse(change(whole), where="plans"))


@often
@given(change=changes())
def test_a_grid(tmp_path, change):
    whole = {
        "title": "t",
        "datasets": {"one": {"id": 501, "name": "One"}},
        "labels": {"uniform": {"labels.source": "uniform"}},
        "methods": {"DML": {"trainer": "nnUNetTrainerDML", "options": {"loss.weight_ce": 1}}},
        "networks": {"narrow": {"batch_size": 8, "features": [16, 32]}},
        "options": {"training.epochs": 30},
        "quick": {"options": {"training.epochs": 3}},
        "table": {"metrics": ["dice"], "paper": {"one": {"DML": {"dice": 90.0}}}},
    }
    path = tmp_path / "grid.yaml"
    path.write_text(json.dumps(change(whole)))
    accepted_or_said(lambda: read_grid(str(path), quick=True))


@often
@given(change=changes())
def test_a_data_set(tmp_path, change):
    whole = {
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "regions_class_order": [1, 2],
        "file_ending": ".nii.gz",
        "nnunet_dml": {"format": 1, "raters": ["a"], "cases": {"x": {"raters": ["a"]}}},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(change(whole)))
    accepted_or_said(read_dataset, tmp_path)


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory):
    """A case that nnU-Net has preprocessed."""
    root = tmp_path_factory.mktemp("preprocessed")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(root / name))
        COMMANDS["preprocess"].make(root)
        yield root


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("raw/Dataset501_Test/dataset.json", ("",)),
        ("preprocessed/Dataset501_Test/nnUNetPlans.json", ("", "configurations", "2d")),
    ],
)
@settings(often, max_examples=EXAMPLES // 2)
@given(change=changes())
def test_what_is_preprocessed(preprocessed, capsys, name, place, change):
    """Through `preprocess`, which makes a map of it."""
    path = preprocessed / name
    whole = path.read_text()
    try:
        content = {"": json.loads(whole)}
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = change(inner[place[-1]])
        path.write_text(json.dumps(content[""]))
        shutil.rmtree(preprocessed / "preprocessed/Dataset501_Test/nnUNetPlans_2d_soft", ignore_errors=True)
        status = main(list(COMMANDS["preprocess"].arguments))
        said = capsys.readouterr().err
        assert status in (0, 2), said
        assert (status == 2) == bool([it for it in said.splitlines() if it.startswith("nnunet-dml")])
    finally:
        path.write_text(whole)


@often
@given(change=changes())
def test_the_folds(tmp_path, change):
    path = tmp_path / "splits_final.json"
    path.write_text(
        json.dumps(change([{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]))
    )
    accepted_or_said(read_splits, path)


@often
@given(spoil=spoils())
def test_probabilities(tmp_path, spoil):
    whole, path = tmp_path / "whole.npz", tmp_path / "a.npz"
    if not whole.exists():
        probs = np.random.default_rng(0).dirichlet([1, 1, 1], (2, 5, 6)).astype(np.float32)
        np.savez_compressed(whole, probabilities=np.moveaxis(probs, -1, 0))
    path.write_bytes(spoil(whole.read_bytes()))
    accepted_or_said(lambda: read_probabilities(path, num_classes=3))


@often
@given(spoil=spoils())
def test_a_soft_map(tmp_path, spoil):
    whole, path = tmp_path / "whole.b2nd", tmp_path / "a.b2nd"
    if not whole.exists():
        save_soft_map(whole, np.random.default_rng(0).random((1, 4, 16, 16), dtype=np.float32), metadata={})
    with suppress(FileNotFoundError):
        path.unlink()
    path.write_bytes(spoil(whole.read_bytes()))

    def read():
        verify_soft_map(path)  # whose checksum says that what it accepts is what was written
        np.testing.assert_array_equal(open_soft_map(path).load(), open_soft_map(whole).load())

    accepted_or_said(read, errors=DamagedSoftMapError)


def test_their_number():
    tests = [it for name, it in globals().items() if name.startswith("test_") and hasattr(it, "hypothesis")]
    # an evaluation has two files; of what is preprocessed there are two with half as many
    assert (len(tests) + 1) * EXAMPLES == 1100
