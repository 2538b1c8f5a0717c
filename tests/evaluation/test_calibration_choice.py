"""The method for a group is chosen without that group."""

import pytest

from nnunet_dml.calibration import VoxelSample
from nnunet_dml.evaluation.calibrated import fit as fitting
from nnunet_dml.evaluation.calibrated.choice import CrossFit
from tests.calibration.helpers import batch
from tests.cli.calibration_world import DATASET, World


class Untouchable:
    """A sample that nobody may look at."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} was looked at")


def test_the_choice_without_a_group_never_looks_at_it():
    samples = {}
    for seed in range(3):
        samples[f"fold_{seed}"] = VoxelSample(seed=seed)
        samples[f"fold_{seed}"].update(*batch((9, 9), 3, seed=seed))
    alone = CrossFit(samples, keys=30).best()
    cross = CrossFit({**samples, "fold_3": Untouchable()}, keys=30)
    assert cross.best(frozenset(["fold_3"])) == alone
    with pytest.raises(AssertionError, match="was looked at"):
        cross.best()


def test_the_fit_asks_for_the_choice_without_each_group(tmp_path, monkeypatch):
    asked = []

    def best(self, without=frozenset()):
        asked.append(without)
        return "vector" if without == {"fold_1"} else "temperature"

    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    monkeypatch.setattr(CrossFit, "best", best)
    world = World(tmp_path)
    fitted = fitting.fit(world.model, fitting.dataset_of(world.model, tmp_path / "raw" / DATASET), keys=30)
    assert asked == [frozenset(), *(frozenset([f"fold_{k}"]) for k in range(3))]
    assert [it.method for it in fitted.without.values()] == ["temperature", "vector", "temperature"]
    assert fitted.method == "temperature"
