"""Every row at minute size: it measures something, and what it compares does the same work."""

import importlib
import math
import os

import numpy as np
import pytest
import torch

from benchmarks import _page, _timing
from benchmarks._timing import Line, Options, timed

pytestmark = pytest.mark.filterwarnings("ignore")  # of the others' code
ALONE = ("loss", "kde", "fusion", "evaluation", "storage", "bfloat16")


@pytest.fixture
def options(tmp_path, monkeypatch):
    """Minute sizes; a fresh process is this one."""

    def here(module, names, point, threads, *, timing=False):
        calls = importlib.import_module(module).candidates(**point)
        found = {name: timed(calls[name]) for name in dict.fromkeys(names)}
        return {
            name: Line((seconds,), 1.0, value if isinstance(value, list) else None)
            for name, (seconds, value) in found.items()
        }

    monkeypatch.setattr(_timing, "in_fresh_processes", here)
    return Options(tmp_path, "minute")


def check(row, name):
    assert row.name == name
    assert row.aims or name == "bfloat16"  # which has none where the CPU has no instructions for it
    assert all(math.isfinite(aim.found) and aim.found > 0 for aim in row.aims)
    assert all(line.seconds for table in row.tables for line in table.lines.values())
    for curve in row.curves:
        assert all(len(lines) == len(curve.sizes) > 1 for lines in curve.lines.values())
    text = _page.page([row], figures=None)
    assert text.count(" met |") + text.count(" **not met** |") == len(row.aims)
    assert all(f"| {table.title} | time |" in text for table in row.tables)


@pytest.mark.parametrize("name", ALONE)
def test_a_row(options, name):
    check(importlib.import_module(f"benchmarks.{name}").measure(options), name)


def test_the_plain_loss_is_ours():
    from benchmarks import loss

    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, 6, 7)
    found = loss.losses(logits)
    assert float(found[loss.OURS]()) == pytest.approx(float(found[loss.PLAIN]()), abs=1e-6)


@pytest.mark.parametrize("from_files", [True, False])
def test_the_fusions_agree(tmp_path, from_files):
    from benchmarks import fusion

    fusion.make(tmp_path / "raters", (5, 24, 24), 2)
    calls = fusion.candidates(str(tmp_path / "raters"), 7, 2, from_files)
    vote = calls[fusion.VOTE]()
    assert 0 < vote.mean() < 1
    np.testing.assert_array_equal(vote, calls[fusion.ITK]())
    np.testing.assert_allclose(calls[fusion.MEAN](), calls[fusion.NUMPY](), atol=1e-6)


def test_the_evaluations_agree(tmp_path):
    from benchmarks import evaluation

    evaluation.make(tmp_path / "volumes", (4, 16, 16), 3, 3)
    found = [call() for call in evaluation.candidates(str(tmp_path / "volumes"), 3).values()]
    assert np.shape(found) == (3, 3, len(evaluation.COUNTERPARTS))
    np.testing.assert_allclose(found[1:], [found[0]] * 2, atol=1e-5)
    assert found[0][0][evaluation.COUNTERPARTS.index("ece")] == pytest.approx(
        evaluation.exact_ece(tmp_path / "volumes"), abs=1e-6
    )


@pytest.mark.parametrize("which", ["OURS", "POOLED"])
def test_an_evaluation_that_is_killed_has_met_nothing(options, monkeypatch, which):
    from benchmarks import evaluation

    def killed(*words, **how):
        return {**compare(*words, **how), **({name: Line(had=2048.0)} if how.get("apart") else {})}

    compare, name = evaluation.compare, getattr(evaluation, which)
    monkeypatch.setattr(evaluation, "compare", killed)
    row = evaluation.measure(options)
    assert row.missing == [f"the time of {name}, which was killed when it had all of 2.0 GiB"]
    its = [it for it in row.aims if which == "OURS" or name in it.what]
    assert len(its) == (4 if which == "OURS" else 0)
    assert not any(it.met for it in its)


def test_the_soft_maps_are_the_same(tmp_path):
    from benchmarks import storage

    ours, nifti, eight = (call() for call in storage.candidates(str(tmp_path), "minute", 3, True).values())
    assert ((nifti > 0) & (nifti < 1)).any()
    np.testing.assert_allclose(ours, nifti, atol=1 / 510 + 1e-6)
    np.testing.assert_allclose(ours, eight, atol=1e-6)


@pytest.mark.slow
def test_loader_and_epoch_on_a_phantom_of_their_own(options, monkeypatch):
    from benchmarks import epoch, loader

    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", "")  # what the rows set goes away
    monkeypatch.setenv("nnUNet_n_proc_DA", "")
    check(loader.measure(options), "loader")
    check(epoch.measure(options), "epoch")
    assert os.environ["nnUNet_raw"] == str(options.folder / "raw")
