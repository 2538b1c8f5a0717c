import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings

from nnunet_dml.labels import fuse
from nnunet_dml.labels import staple as module
from tests.labels.test_fusion import raters
from tests.reference import fusion as reference


def noisy(seed, *, classes=2, count=4, shape=(9, 11), error=0.15):
    """Raters of a random truth, each with errors of his own."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, shape, p=np.arange(classes, 0, -1) / np.arange(classes + 1).sum())
    wrong = rng.random((count, *shape)) < rng.uniform(0, 2 * error, (count,) + (1,) * len(shape))
    return np.where(wrong, rng.integers(0, classes, (count, *shape)), truth).astype(np.uint8)


def staple(masks, **options):
    return fuse(masks, method="staple", **options)


def mean(masks, **options):
    return fuse(masks, method="uniform", **options)


class TestFit:
    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize("shape", [(60,), (9, 11), (4, 5, 6)])
    def test_two_labels_equal_the_reference(self, seed, shape):
        masks = noisy(seed, shape=shape, count=3 + seed % 3)
        np.testing.assert_allclose(staple(masks), reference.staple(masks, 2), atol=1e-5)

    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("classes", [3, 4])
    def test_more_labels_equal_the_reference(self, seed, classes):
        masks = noisy(seed, classes=classes, shape=(8, 9, 10), count=3 + seed % 3)
        np.testing.assert_allclose(staple(masks), reference.staple(masks, classes), atol=5e-3)

    @pytest.mark.parametrize("seed", range(5))
    def test_two_labels_are_the_probability_that_simpleitk_returns(self, seed):
        masks = noisy(seed, shape=(6, 7, 8))
        wanted = sitk.GetArrayFromImage(sitk.STAPLE([sitk.GetImageFromArray(m) for m in masks], 1.0))
        disputed = masks.min(axis=0) < masks.max(axis=0)
        np.testing.assert_allclose(staple(masks)[1][disputed], wanted[disputed], atol=1e-6)

    @pytest.mark.parametrize("seed", range(5))
    def test_the_most_likely_of_more_labels_is_the_one_that_simpleitk_returns(self, seed):
        masks = noisy(seed, classes=3, count=5, shape=(20, 20))
        hard = sitk.GetArrayFromImage(sitk.MultiLabelSTAPLE([sitk.GetImageFromArray(m) for m in masks]))
        soft = staple(masks)
        low, high = np.sort(soft, axis=0)[-2:]
        given = (masks == hard).any(axis=0)  # the filter may choose a label that nobody gave there
        fitted = (high - low > 1e-3) & given & ~np.isclose(soft, mean(masks)).all(axis=0)
        assert fitted.sum() > 50
        np.testing.assert_array_equal(soft.argmax(axis=0)[fitted], hard[fitted])

    def test_two_raters_that_agree_outweigh_one_that_errs(self):
        rng = np.random.default_rng(0)
        truth = rng.random((30, 30)) < 0.4
        masks = np.stack([truth, truth, truth ^ (rng.random(truth.shape) < 0.4)])
        masks[0, 0, :5] ^= True
        np.testing.assert_allclose(staple(masks)[1][1:], truth[1:], atol=1e-3)

    def test_a_label_that_nobody_gave_changes_nothing(self):
        for classes, spread in ((2, [0, 3]), (3, [0, 2, 5])):
            masks = noisy(1, classes=classes, shape=(8, 9, 10))
            fused = staple(np.array(spread)[masks], num_classes=7)
            np.testing.assert_allclose(fused[spread], staple(masks), atol=1e-6)
            np.testing.assert_array_equal(np.delete(fused, spread, axis=0), 0)

    @pytest.mark.parametrize("classes", [254, 255, 256, 257])
    def test_as_many_labels_as_a_byte_holds(self, classes):
        labels = np.arange(classes)
        masks = np.stack([labels, labels, np.roll(labels, 1)])
        np.testing.assert_allclose(staple(masks)[labels, labels], 1, atol=1e-3)

    def test_iterations_are_bounded(self, monkeypatch):
        masks = {classes: noisy(3, classes=classes, shape=(8, 9, 10), error=0.3) for classes in (2, 3)}
        converged = {c: staple(m) for c, m in masks.items()}
        monkeypatch.setattr(module, "MAX_ITERATIONS", 2)
        for classes, each in masks.items():
            assert np.abs(staple(each) - converged[classes]).max() > 1e-3


class TestDefinedResults:
    """Each of them is a sentence of the docstring."""

    @pytest.mark.parametrize("classes", [2, 3])
    def test_single_rater_is_one_hot(self, classes):
        masks = noisy(0, classes=classes, count=1)
        np.testing.assert_array_equal(staple(masks), [masks[0] == c for c in range(classes)])

    def test_all_empty_is_background(self):
        np.testing.assert_array_equal(staple(np.zeros((3, 4), int), num_classes=2), [[1] * 4, [0] * 4])

    @pytest.mark.parametrize("classes", [2, 3])
    def test_unanimous_voxels_are_exact(self, classes):
        masks = noisy(2, classes=classes, count=3)
        same = (masks == masks[0]).all(axis=0)
        assert same.any()
        expected = np.stack([masks[0] == c for c in range(classes)])
        np.testing.assert_array_equal(staple(masks)[:, same], expected[:, same])

    @pytest.mark.parametrize("labels", [(0, 1), (0, 2), (1, 2)])
    def test_one_full_and_one_empty_is_a_half(self, labels):
        masks = np.stack([np.full((3, 4), label) for label in labels])
        fused = staple(masks, num_classes=3)
        np.testing.assert_array_equal(fused[list(labels)], 0.5)
        np.testing.assert_array_equal(fused.sum(axis=0), 1)

    def test_equal_posteriors_are_the_mean(self):
        # each label once in each voxel: no rater is better than another
        masks = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
        np.testing.assert_array_equal(staple(masks), mean(masks))

    def test_a_tie_of_the_fit_is_the_mean_not_a_half(self, monkeypatch):
        masks = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])
        posterior, informative = np.array([[0.5, 0.4], [0.5, 0.6]]), np.ones((3, 2), bool)
        monkeypatch.setattr(module, "_fit_two", lambda *_: (posterior, informative))
        np.testing.assert_allclose(staple(masks)[1], [1 / 3, 0.6, 0], atol=1e-6)

    def test_nan_is_the_mean(self, monkeypatch):
        fit = module._fit_two

        def broken(*args):
            posterior, informative = fit(*args)
            posterior[:, ::2] = np.nan
            return posterior, informative

        masks = noisy(4)
        wanted, fitted = mean(masks), staple(masks)
        monkeypatch.setattr(module, "_fit_two", broken)
        fused = staple(masks)
        disputed = masks.min(axis=0) < masks.max(axis=0)
        np.testing.assert_array_equal(fused[:, disputed][:, ::2], wanted[:, disputed][:, ::2])
        np.testing.assert_array_equal(fused[:, disputed][:, 1::2], fitted[:, disputed][:, 1::2])
        assert np.isfinite(fused).all()

    @pytest.mark.parametrize("turned", [[True, True, True], [True, False, False]])
    def test_a_label_whose_givers_are_all_turned_round_is_the_mean(self, monkeypatch, turned):
        # 1 is likely by the fit; in voxel 0 rater 0 alone gave it, in voxel 1 raters 0 and 1 did
        masks = np.array([[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]])
        informative = ~np.repeat(np.array(turned)[:, None], 2, axis=1)
        posterior = np.array([[0.1, 0.2], [0.9, 0.8]])
        monkeypatch.setattr(module, "_fit_two", lambda *_: (posterior, informative))
        first, second = staple(masks)[1][:2]
        np.testing.assert_allclose([first, second], [1 / 3, 2 / 3 if all(turned) else 0.8], atol=1e-6)

    def test_a_rater_turned_round_is_seen(self):
        # he marks everything but the truth; the others are nearly right
        rng = np.random.default_rng(0)
        truth = rng.random(400) < 0.4
        masks = np.stack([truth ^ (rng.random(400) < 0.05) for _ in range(4)] + [~truth]).astype(np.uint8)
        disputed = np.ones(400, bool)
        images = [sitk.GetImageFromArray(m[None]) for m in masks]
        assert module._fit_two(images, disputed)[1].tolist() == [[True] * 2] * 4 + [[False] * 2]
        alone = (masks[:4] == 0).all(axis=0) & (masks[4] == 1)
        assert (staple(masks)[1][alone] < 0.5).all()

    def test_a_rater_who_confuses_two_of_three_labels_is_seen(self):
        rng = np.random.default_rng(0)
        truth = rng.integers(0, 3, 600)
        good = np.where(rng.random((4, 600)) < 0.05, rng.integers(0, 3, (4, 600)), truth)
        masks = np.vstack([good, [np.array([0, 2, 1])[truth]]]).astype(np.uint8)
        images = [sitk.GetImageFromArray(m[None]) for m in masks]
        prior = np.array([(masks == c).mean() for c in range(3)])
        assert module._fit_more(images, masks, prior)[1].tolist() == [[True] * 3] * 4 + [[True, False, False]]

    def test_ties_of_two_raters_stay_between(self):
        # symmetric: equal voxels of equal raters are equal
        masks = np.zeros((2, 100), int)
        masks[0, 3] = masks[1, 7] = 1
        fused = staple(masks)
        assert fused[1, 3] == pytest.approx(fused[1, 7])

    @pytest.mark.parametrize("classes", [2, 3, 4])
    def test_no_label_is_invented(self, classes):
        for seed in range(10):
            masks = noisy(seed, classes=classes, count=3, error=0.4)
            fused = staple(masks, num_classes=classes)
            for c in range(classes):
                assert (fused[c][(masks != c).all(axis=0)] == 0).all()


class TestProperties:
    @given(raters())
    @settings(max_examples=80, deadline=None)
    def test_sums_to_one_and_keeps_what_all_say(self, example):
        classes, masks = example
        kept = masks.copy()
        fused = staple(masks, num_classes=classes)
        assert fused.dtype == np.float32
        assert (fused >= 0).all()
        np.testing.assert_allclose(fused.sum(axis=0), 1, atol=1e-6)
        share = mean(masks, num_classes=classes)
        assert (fused[share == 1] == 1).all()
        assert (fused[share == 0] == 0).all()
        np.testing.assert_array_equal(masks, kept)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("classes", [2, 3])
    def test_order_of_raters_and_names_of_labels_do_not_matter(self, seed, classes):
        masks = noisy(seed, classes=classes, shape=(8, 9, 10))
        fused = staple(masks)
        order = np.random.default_rng(seed).permutation(len(masks))
        np.testing.assert_allclose(staple([masks[r] for r in order]), fused, atol=1e-4)
        renamed = np.roll(np.arange(classes), 1)
        np.testing.assert_allclose(staple(renamed[masks])[renamed], fused, atol=5e-3)

    def test_raters_that_come_one_by_one(self):
        masks = noisy(0)

        class Files:
            def __iter__(self):
                return iter(masks)

        np.testing.assert_array_equal(staple(Files()), staple(masks))
