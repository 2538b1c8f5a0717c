"""A raw dataset and a model with validation probabilities that are too sure, without any training."""

from __future__ import annotations

import json

import numpy as np
import SimpleITK as sitk

MODEL = "nnUNetTrainer__nnUNetPlans__2d"
DATASET = "Dataset007_Toy"
LABELS = {"background": 0, "core": 1, "rim": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 1}


def softmax(z):
    p = np.exp(z - z.max(0))
    return p / p.sum(0)


class World:
    """Cases `a`, `b`, … of 12 × 10, two per fold; the probabilities are those that labels are drawn from, to the third power."""

    def __init__(self, root, *, regions=False, folds=3, per_fold=2, raters=3, ending=".nii.gz", ignore=False):
        self.root, self.regions, self.ending = root, regions, ending
        self.raw = root / "raw" / DATASET
        self.model = root / "results" / DATASET / MODEL
        self.labels = dict(REGIONS if regions else LABELS)
        if ignore:
            self.labels["ignore"] = 3
        content = {
            "labels": self.labels,
            "file_ending": ending,
            "channel_names": {"0": "MR"},
            "numTraining": 6,
        }
        if regions:
            content["regions_class_order"] = [2, 1]
        for folder in (self.raw, self.model):
            folder.mkdir(parents=True)
            (folder / "dataset.json").write_text(json.dumps(content))
        plans = {"dataset_name": DATASET, "image_reader_writer": "SimpleITKIO"}
        (self.model / "plans.json").write_text(json.dumps(plans))
        rng = np.random.default_rng(0)
        self.probs, self.votes, self.consensus, self.fold = {}, {}, {}, {}
        for i in range(folds * per_fold):
            case, z = "abcdefghij"[i], rng.normal(size=(3, 12, 10)) * 1.5
            truth = softmax(z)
            votes = np.array([(rng.random((12, 10)) > truth.cumsum(0)).sum(0) for _ in range(raters or 1)])
            votes = votes.clip(0, 2).astype(np.uint8)
            counts = np.stack([(votes == c).sum(0) for c in range(3)])
            self.consensus[case], self.fold[case] = counts.argmax(0).astype(np.uint8), i // per_fold
            spoiled = softmax(3 * z)
            self.probs[case] = np.stack([spoiled[1:].sum(0), spoiled[1]]) if regions else spoiled
            self.probs[case] = self.probs[case].astype(np.float32)[:, None]
            if ignore:
                self.consensus[case][:2] = 3
                votes[:, :2] = 3
            self.votes[case] = votes
            self.write_label(self.raw / "labelsTr" / (case + ending), self.consensus[case])
            for r, vote in enumerate(votes if raters else []):
                self.write_label(self.raw / "ratersTr" / case / f"r{r}{ending}", vote)
            self.write_npz(case)

    def write_label(self, path, array):
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))

    def npz(self, case):
        return self.model / f"fold_{self.fold[case]}" / "validation" / f"{case}.npz"

    def write_npz(self, case, probs=None):
        self.npz(case).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(self.npz(case), probabilities=self.probs[case] if probs is None else probs)

    def reference(self, case, kind="raters"):
        """(C, N): the classes' or regions' shares."""
        maps = self.votes[case] if kind == "raters" else self.consensus[case][None]
        shares = np.stack([(maps == c).mean(0) for c in range(3)])
        shares = np.stack([shares[1:].sum(0), shares[1]]) if self.regions else shares
        return shares.reshape(len(shares), -1)


def figures(pairs):
    """Brier, ECE and NLL of (probs, shares), each (C, N), by plain NumPy."""
    p, y = (np.concatenate([pair[i] for pair in pairs], 1).astype(float) for i in (0, 1))
    brier = ((p - y) ** 2).sum(0).mean()
    nll = -(y * np.log(np.maximum(p, 1e-7))).sum(0).mean()
    top = p.argmax(0)
    confidence, accuracy = p.max(0), y[top, np.arange(p.shape[1])]
    bins = np.minimum((confidence * 10).astype(int), 9)
    ece = sum(abs((accuracy - confidence)[bins == b].sum()) for b in range(10)) / p.shape[1]
    return {"brier": brier, "ece": ece, "nll": nll}


def as_classes(probs, shares):
    """Regions as problems of two classes, one behind the other."""
    both = [np.concatenate(it)[None] for it in (list(probs), list(shares))]
    return tuple(np.concatenate([1 - it, it]) for it in both)
