"""A small raw dataset with raters, and a model with predictions, on disk."""

import argparse
import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml._checks import InputError
from nnunet_dml.cli import evaluate
from nnunet_dml.evaluation.cases import evaluate_case
from nnunet_dml.evaluation.dataset import read_dataset
from nnunet_dml.evaluation.options import Options
from nnunet_dml.evaluation.predictions import Prediction

MODEL = "nnUNetTrainerDML__nnUNetPlans__2d"
LABELS = {"background": 0, "core": 1, "rim": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": [1]}


def write_image(path, array, spacing=1.0, vector=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array, isVector=vector)
    sizes = spacing if isinstance(spacing, (list, tuple)) else [spacing] * image.GetDimension()
    image.SetSpacing(list(sizes))
    sitk.WriteImage(image, str(path))


def votes_and_probs(rng, shape, raters, channels):
    """Raters who differ about a random half of the voxels, and probabilities that know nothing."""
    votes = rng.integers(0, 3, (raters, *shape)).astype(np.uint8)
    if channels == "regions":
        return votes, rng.random((2, *shape), dtype=np.float32)
    return votes, np.moveaxis(rng.dirichlet(np.ones(3), shape), -1, 0).astype(np.float32)


class World:
    """`Dataset007_Toy` with the cases `a` to `d`, and a model with two folds of two cases, in a temporary folder."""

    def __init__(self, root, *, shape=(6, 7), labels=None, ending=".nii.gz", raters=3, spacing=1.0):
        self.root, self.ending, self.spacing = root, ending, spacing
        self.raw = root / "raw" / "Dataset007_Toy"
        self.model = root / "results" / "Dataset007_Toy" / MODEL
        self.out = root / "out"
        self.raw.mkdir(parents=True)
        labels = labels or LABELS
        self.regions = any(isinstance(value, list) for value in labels.values())
        self.content = {"labels": labels, "file_ending": ending, "channel_names": {"0": "MR"}}
        self.save(**({"regions_class_order": [2, 1]} if self.regions else {}))
        rng = np.random.default_rng(0)
        self.probs, self.votes, self.consensus = {}, {}, {}
        for i, case in enumerate("abcd"):
            votes, probs = votes_and_probs(rng, shape, raters, "regions" if self.regions else "classes")
            counts = np.stack([(votes == c).sum(0) for c in range(3)])
            self.votes[case], self.consensus[case] = votes, counts.argmax(0).astype(np.uint8)
            self.probs[case] = probs
            self.write(self.label(case), self.consensus[case])
            for r in range(raters):
                self.write(self.rater(case, r), votes[r])
            self.write_npz(case, i // 2, probs)

    def save(self, **more):
        self.content |= more
        (self.raw / "dataset.json").write_text(json.dumps(self.content))

    def write(self, path, array, **options):
        write_image(path, array, **{"spacing": self.spacing, **options})

    def label(self, case):
        return self.raw / "labelsTr" / (case + self.ending)

    def rater(self, case, r):
        return self.raw / "ratersTr" / case / f"rater{r}{self.ending}"

    def npz(self, case, fold):
        return self.model / f"fold_{fold}" / "validation" / f"{case}.npz"

    def write_npz(self, case, fold, probs):
        path = self.npz(case, fold)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, probabilities=probs[:, None] if probs.ndim == 3 else probs)

    def soft(self, case):
        """The raters' mean, `(3, *shape)`."""
        return np.stack([(self.votes[case] == c).mean(0) for c in range(3)])

    def measure(self, case="a", *, path=None, block=None, **options):
        """The record of one case, without the command."""
        fold = "0" if case in "ab" else "1"
        prediction = Prediction(case, fold, path or self.npz(case, fold))
        more = {} if block is None else {"block": block}
        return evaluate_case(prediction, read_dataset(self.raw), Options(**options), **more)

    def run(self, *more, dataset="7", source=("--model", MODEL), processes="1"):
        parser = argparse.ArgumentParser()
        evaluate.add_arguments(parser)
        args = ["-d", dataset, *source, "-o", str(self.out), "-np", processes, *more]
        return evaluate.run(parser.parse_args(args))

    def refuses(self, *parts, more=(), **options):
        """The command ends on bad input, one line naming each of the parts, and leaves no results behind."""
        with pytest.raises(InputError) as caught:
            self.run(*more, **options)
        if self.out.exists():  # whole records of the cases that were right, for the next run
            assert [it.name for it in self.out.iterdir()] == ["unfinished"]
            files = [it for it in self.out.rglob("*") if it.is_file()]
            assert files
            assert all(json.loads(it.read_text())["case"] == it.stem for it in files)
        assert all(line.count("\n") == 0 for line in caught.value.problems)
        for part in parts:
            assert any(str(part) in line for line in caught.value.problems), (part, caught.value.problems)
        return caught.value.problems

    def refuses_again(self, *more):
        """The problems of a run over older results, which stay as they are."""
        before = {it: it.read_bytes() for it in self.out.glob("*.*")}
        with pytest.raises(InputError) as caught:
            self.run(*more)
        assert {it: it.read_bytes() for it in self.out.glob("*.*")} == before
        return caught.value.problems

    def rows(self):
        with (self.out / "cases.csv").open(newline="") as stream:
            return list(csv.DictReader(stream))

    def summary(self):
        return json.loads((self.out / "summary.json").read_text())
