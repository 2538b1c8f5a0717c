"""Histograms of many references and zones at once against the metrics' own counts."""

import numpy as np
import pytest
import torch

from nnunet_dml import metrics
from nnunet_dml.evaluation import binning


def some_voxels(number, classes=3):
    rng = np.random.default_rng(number)
    probs = rng.dirichlet(np.full(classes, 0.3), number).T.astype(np.float32)
    probs[:, :3] = np.eye(classes)[:3].T  # 1 exactly
    probs[:, 3] = 1 / classes  # a tie
    labels = rng.integers(0, classes, (3, number)).astype(np.uint8)
    soft = np.stack([(labels == c).mean(0) for c in range(classes)]).astype(np.float32)
    zones = rng.integers(0, 4, number).astype(np.uint8)
    return np.ascontiguousarray(probs), labels, soft, zones


@pytest.mark.parametrize("chunk", [7, 2**16])
def test_histograms_equal_the_counts(chunk, monkeypatch):
    monkeypatch.setattr(binning, "CHUNK", chunk)
    probs, labels, soft, zones = some_voxels(200)
    found = binning.histograms(
        probs, [labels[0], soft], zones, bins=7, classes=range(3), top_only=[labels[1], labels[2]]
    )
    p = torch.from_numpy(probs)[None]
    references = [torch.from_numpy(it)[None] for it in (labels[0], soft, labels[1], labels[2])]
    for code in range(4):
        mask = torch.from_numpy(zones == code)[None]
        for row, reference in enumerate(references):
            top = metrics.reliability_counts(p, reference, bins=7, mask=mask).numpy()
            np.testing.assert_allclose(found.top[code, [0, 1, 2 + row]], top, rtol=1e-12)
            if row < 2:
                wanted = metrics.classwise_counts(p, reference, bins=7, mask=mask).numpy()
                np.testing.assert_allclose(found.classes[:, code][:, [0, 1, 2 + row]], wanted, rtol=1e-12)
    assert found.classes.shape[2] == 4
    for row, reference in enumerate(references[:2]):
        wanted = metrics.adaptive_counts(p, reference).numpy()
        np.testing.assert_allclose(found.adaptive[[0, 1, 2 + row]], wanted, rtol=1e-12)


def test_chosen_classes_only():
    probs, labels, _, zones = some_voxels(50)
    whole = binning.histograms(probs, [labels[0]], zones, bins=5, classes=range(3))
    one = binning.histograms(probs, [labels[0]], zones, bins=5, classes=(1,))
    np.testing.assert_array_equal(one.classes[0], whole.classes[1])
    with pytest.raises(ValueError, match="one voxel at least"):
        binning.histograms(probs[:, :0], [labels[0, :0]], zones[:0], bins=5, classes=(1,))
