"""Cases whose labels are those of one rater."""

import numpy as np

from nnunet_dml.nnunet.dataset import RaterInPlace

CONSENSUS = np.array([[[[-1, -1, -1, 0, 0, 1]]]], np.int16)
RATERS = np.array([[[[0, 1, 3, 0, 1, 1]]], [[[0, 0, 0, 2, 0, 0]]]], np.uint8)


def test_one_raters_labels_outside_the_mask_too():
    """There his background is −1, as nnU-Net marks it; what he has labelled (3: he abstains) stays."""
    for rater, expected in enumerate(([-1, 1, 3, 0, 1, 1], [-1, -1, -1, 2, 0, 0])):
        labels = RaterInPlace(CONSENSUS, RATERS, rater)
        assert labels.shape == CONSENSUS.shape
        found = labels[:]
        assert found.dtype == np.int16
        assert found[0, 0, 0].tolist() == expected
        cut = labels[:, 0:1, 0:1, 1:4]
        assert cut[0, 0, 0].tolist() == expected[1:4]
