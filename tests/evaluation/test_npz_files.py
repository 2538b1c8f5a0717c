"""Large arrays of `.npz` files are read slab by slab from a temporary file, and nothing else changes."""

import errno
import io
import math
import tempfile
import tracemalloc
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.evaluation import npz_files
from nnunet_dml.evaluation.npz_files import FileSlabs, Slabs
from nnunet_dml.evaluation.probability_files import open_probabilities, read_probabilities
from tests.evaluation.evaluation_world import LABELS, REGIONS, World

SHAPE = (5, 7, 6)


def with_tempfile(monkeypatch, **functions):
    """Others than `tempfile`'s, for this module alone."""
    own = {name: functions.get(name, getattr(tempfile, name)) for name in ("TemporaryFile", "gettempdir")}
    monkeypatch.setattr(npz_files, "tempfile", SimpleNamespace(**own))


@pytest.fixture
def made(monkeypatch):
    """The temporary files that were made."""
    files = []

    def make():
        files.append(tempfile.TemporaryFile())  # noqa: SIM115
        return files[-1]

    with_tempfile(monkeypatch, TemporaryFile=make)
    return files


@pytest.fixture
def streamed(monkeypatch):
    """Every array counts as large, and slices are read one by one."""
    monkeypatch.setattr(npz_files, "LARGE", 0)
    monkeypatch.setattr(npz_files, "CHUNK", 1)


def some_probs(dtype=np.float32, shape=SHAPE):
    rng = np.random.default_rng(1)
    return np.moveaxis(rng.dirichlet(np.ones(3), shape), -1, 0).astype(dtype, order="C")


def write_member(path, array, *, version=(1, 0), more=b"", name="probabilities.npy"):
    with zipfile.ZipFile(path, "w") as archive, archive.open(name, "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, version=version)
        member.write(more)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["classes", "regions"])
def test_records_are_the_same_bit_for_bit(environment, made, request, labels, dtype, save):
    world = World(environment, shape=SHAPE, labels=labels)
    save(world.npz("a", 0), probabilities=world.probs["a"].astype(dtype))
    whole = world.measure("a", block=90)  # two slices and a bit
    assert made == []
    request.getfixturevalue("streamed")
    assert repr(world.measure("a", block=90)) == repr(whole)
    assert [it.closed for it in made] == [True]


@pytest.mark.parametrize("stored", ["<f2", "<f4", ">f4", "<f8", ">f8"])
def test_what_is_read_from_a_file(tmp_path, streamed, stored):
    path, wanted = tmp_path / "a.npz", some_probs(stored)
    np.savez_compressed(path, probabilities=wanted)
    places = np.array([0, 3, 4, 100, 209])
    with open_probabilities(path, num_classes=3) as found:
        assert isinstance(found, FileSlabs)
        assert (found.shape, found.dtype) == (wanted.shape, np.dtype(stored))
        read = [found.slab(1, 4), found.at(places), np.stack(list(found.slices()), 1)]
    with open_probabilities(path, num_classes=3, large=math.inf) as found:
        assert type(found) is Slabs
        read += [found.slab(1, 4), found.at(places), np.stack(list(found.slices()), 1)]
    parts = [wanted[:, 1:4], wanted.reshape(3, -1)[:, places], wanted]
    for it, part in zip(read, parts * 2, strict=True):
        assert it.dtype.isnative
        np.testing.assert_array_equal(it, part)


@pytest.mark.parametrize(
    ("options", "in_file"),
    [
        ({}, True),
        ({"version": (2, 0)}, True),
        ({"version": (3, 0)}, False),
        ({"more": b"more"}, False),
        ({"name": "probabilities"}, True),
    ],
)
def test_forms_of_archives(tmp_path, streamed, options, in_file):
    path = tmp_path / "a.npz"
    write_member(path, some_probs(), **options)
    with open_probabilities(path, num_classes=3) as found:
        assert isinstance(found, FileSlabs) is in_file
        np.testing.assert_array_equal(found.slab(0, 5), some_probs())


@pytest.mark.parametrize("array", [np.asfortranarray(some_probs()), np.empty((3, 0, 7, 6), np.float32)])
def test_odd_arrays_are_read_whole(tmp_path, streamed, array):
    path = tmp_path / "a.npz"
    np.savez(path, probabilities=array)
    with open_probabilities(path, num_classes=3) as found:
        assert type(found) is Slabs
        np.testing.assert_array_equal(found.slab(0, array.shape[1]), array)
    np.testing.assert_array_equal(read_probabilities(path, num_classes=3), array)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


def holding(content):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("probabilities.npy", content)

    return write


def cut_short(path):
    """A header whose array is not there."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (3, *SHAPE)}
    with io.BytesIO() as content:
        np.lib.format.write_array_header_1_0(content, header)
        holding(content.getvalue() + b"few")(path)


DAMAGES = {
    "flipped": flipped,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "cut_short": cut_short,
    "objects": lambda path: np.savez(path, probabilities=np.array([[[[None]]]])),
    "integers": lambda path: np.savez(path, probabilities=np.ones((3, *SHAPE), ">i4")),
    "flat": lambda path: np.savez(path, probabilities=some_probs()[0]),
    "two": lambda path: np.savez(path, probabilities=some_probs()[:2]),
    "text": holding("no array at all"),
    "header": holding(b"\x93NUMPY\x01\x00\x02"),
    "too_large": lambda path: np.savez(path, probabilities=some_probs() * 2),
    "half": lambda path: np.savez(path, probabilities=some_probs() / 2),
    "nan": lambda path: np.savez(path, probabilities=some_probs() * np.where(np.arange(6) == 4, np.nan, 1)),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("how", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_said_in_the_same_words(tmp_path, made, streamed, how, save):
    path = tmp_path / "a.npz"
    save(path, probabilities=some_probs())
    how(path)
    said = []
    for large in (0, math.inf):
        with pytest.raises(InputError) as caught:
            open_probabilities(path, num_classes=3, large=large)
        said.append(caught.value.problems)
    assert said[0] == said[1]
    assert said[0][0].startswith(f"{path}: expected ")
    assert all(it.closed for it in made)


@pytest.mark.parametrize("large", [0, math.inf])
def test_nan_is_found_in_every_slice(tmp_path, large):
    for z in range(3):
        probs = some_probs(shape=(3, 4, 5))
        probs[1, z, 2, 3] = np.nan
        np.savez(tmp_path / "a.npz", probabilities=probs)
        for regions in (False, True):
            with pytest.raises(
                InputError, match=r"expected probabilities in \[0, 1\], found NaN in 1 values"
            ):
                open_probabilities(tmp_path / "a.npz", num_classes=3, regions=regions, large=large)


def test_no_temporary_file_is_left(environment, monkeypatch, made, streamed):
    place = environment / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    world = World(environment, shape=SHAPE)
    world.measure("a")
    world.write(world.label("b"), world.consensus["b"][:, :5])  # found out when the probabilities are open
    world.label("c").write_bytes(b"")
    for case in "bc":
        with pytest.raises(InputError):
            world.measure(case)
    assert [it.closed for it in made] == [True] * 3
    assert list(place.iterdir()) == []


class FullDisk(io.BytesIO):
    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")


def no_folder():
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")


@pytest.mark.parametrize("without", [{"TemporaryFile": FullDisk}, {"gettempdir": no_folder}, {}])
def test_without_room_all_is_read_into_memory(environment, monkeypatch, without):
    world = World(environment, shape=SHAPE)
    whole = world.measure("a")
    monkeypatch.setattr(npz_files, "LARGE", 0)
    with_tempfile(monkeypatch, **without)
    if not without:
        monkeypatch.setattr(npz_files.shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    assert repr(world.measure("a")) == repr(whole)
    with open_probabilities(world.npz("a", 0), num_classes=3) as found:
        assert type(found) is Slabs


def test_memory_stays_far_below_the_size(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_files, "CHUNK", 2**14)
    path, probs = tmp_path / "a.npz", some_probs(shape=(64, 32, 32))
    np.savez_compressed(path, probabilities=probs)
    peaks = []
    for large in (0, math.inf):
        tracemalloc.start()
        with open_probabilities(path, num_classes=3, large=large) as found:
            total = sum(float(part.sum()) for part in found.slices())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == pytest.approx(probs[0].size, rel=1e-3)
    assert peaks[1] > probs.nbytes
    assert peaks[0] < probs.nbytes / 3
