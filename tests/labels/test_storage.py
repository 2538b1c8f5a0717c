"""Soft maps on disk: what is read is what was written, and what is damaged is known."""

from __future__ import annotations

import subprocess
import sys

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_dml.labels.storage import (
    DamagedSoftMapError,
    open_soft_map,
    quantise,
    save_soft_map,
    verify_soft_map,
)


@pytest.fixture
def maps():
    """Fractions of two classes on a 3D grid, made of seven raters' votes."""
    votes = np.random.default_rng(0).multinomial(7, [0.5, 0.3, 0.2], size=(6, 20, 30))
    return np.moveaxis(votes, -1, 0)[1:].astype(np.float32) / 7


@pytest.mark.parametrize(("bits", "error"), [(8, 1 / 510), (16, 1 / 65534)])
def test_round_trip_stays_within_half_a_step(tmp_path, maps, bits, error):
    save_soft_map(tmp_path / "a.b2nd", maps, metadata={"fusion": "uniform"}, bits=bits)
    opened = verify_soft_map(tmp_path / "a.b2nd")
    assert opened.metadata["fusion"] == "uniform"
    np.testing.assert_allclose(opened.load(), maps, atol=error * 1.001)
    assert [p.name for p in tmp_path.iterdir()] == ["a.b2nd"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=3, max_size=12), st.sampled_from([8, 16]))
def test_sums_never_exceed_one_and_extremes_are_exact(votes, bits):
    if sum(votes) == 0:
        votes[0] = 1
    fractions = (np.array(votes, np.float64) / sum(votes)).astype(np.float32)[:, None]
    scale = {8: 255, 16: 32767}[bits]
    stored = quantise(fractions, bits=bits).astype(int)
    assert stored.sum(0).max() <= scale
    assert stored.min() >= 0
    assert (stored[fractions == 0] == 0).all()
    assert (stored[fractions == 1] == scale).all()
    assert np.abs(stored / scale - fractions).max() <= len(votes) / 2 / scale


def test_the_sum_would_exceed_one_without_care():
    fractions = np.full((6, 1), 1 / 6, np.float32)  # 6 × round(42.5) = 252; three of 0.5/255 steps round up
    tight = np.array([[0.3353], [0.3353], [0.3294]], np.float32)
    assert np.rint(tight * 255).sum() == 256
    assert quantise(tight).sum() == 255
    assert quantise(fractions).sum() <= 255


def test_equal_maps_give_equal_bytes(tmp_path, maps):
    for name in ("a", "b"):
        save_soft_map(
            tmp_path / f"{name}.b2nd",
            maps,
            metadata={"sources": {"r1": "00"}, "grid": {"shape": [6, 20, 30]}},
        )
    assert (tmp_path / "a.b2nd").read_bytes() == (tmp_path / "b.b2nd").read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped", "foreign"])
def test_damage_is_known(tmp_path, maps, damage):
    path = tmp_path / "a.b2nd"
    save_soft_map(path, maps, metadata={})
    whole = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not a soft map")
    elif damage == "flipped":
        middle = len(whole) // 2
        path.write_bytes(
            whole[:middle] + bytes(b ^ 0xFF for b in whole[middle : middle + 8]) + whole[middle + 8 :]
        )
    else:
        import blosc2

        path.unlink()
        blosc2.asarray(np.zeros((1, 4, 4), np.uint8), urlpath=str(path))
    with pytest.raises(DamagedSoftMapError, match="expected"):
        verify_soft_map(path)


def test_a_missing_map_is_missing_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_soft_map(tmp_path / "a.b2nd")


def test_a_failed_write_leaves_the_old_map(tmp_path, maps, monkeypatch):
    path = tmp_path / "a.b2nd"
    save_soft_map(path, maps, metadata={})
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnunet_dml.labels.storage.blosc2.asarray", full)
    with pytest.raises(OSError, match="No space left"):
        save_soft_map(path, maps * 0, metadata={})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.b2nd"]


@pytest.mark.parametrize("limit", [0, 100, 1000])
def test_a_disk_that_fills_up_is_an_error_of_the_system(tmp_path, limit):
    """In a process whose files may not grow beyond a limit, as on a full disk."""
    code = (
        "import resource, signal, sys, numpy as np; from nnunet_dml.labels.storage import save_soft_map\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "maps = np.random.default_rng(0).random((1, 64, 64)).astype('float32')\n"
        "try: save_soft_map(sys.argv[1], maps, metadata={})\n"
        "except OSError as error: sys.exit(17 if error.filename == sys.argv[1] else repr(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.b2nd")], capture_output=True, text=True
    )
    assert done.returncode == 17, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_the_region_is_read(tmp_path):
    maps = np.random.default_rng(0).random((1, 64, 64, 64)).astype(np.float32)
    save_soft_map(tmp_path / "a.b2nd", maps, metadata={}, chunks=(1, 16, 16, 16), blocks=(1, 8, 8, 8))
    opened = open_soft_map(tmp_path / "a.b2nd")
    region = (slice(None), slice(3, 7), slice(0, 9), slice(60, 64))
    np.testing.assert_array_equal(opened.array[region], opened.array[:][region])


@pytest.mark.parametrize("key", ["scale", "crc32"])
@pytest.mark.parametrize("value", [None, "255", 0.5])
def test_metadata_that_were_lost(tmp_path, key, value):
    path = tmp_path / "a.b2nd"
    save_soft_map(path, np.zeros((1, 4, 4), np.float32), metadata={})
    stored = blosc2.open(str(path), mode="a")
    meta = dict(stored.schunk.vlmeta["nnunet_dml"])
    stored.schunk.vlmeta["nnunet_dml"] = {**meta, key: value}
    del stored
    with pytest.raises(DamagedSoftMapError, match="expected numbers `scale` and `crc32`"):
        open_soft_map(path)
