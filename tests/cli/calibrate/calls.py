"""`calibrate` as users call it."""

import json

from nnunet_dml.cli.main import main
from nnunet_dml.evaluation import predictions
from tests.cli.calibration_world import DATASET, as_classes

STORE = "nnunet_dml_calibration"


def fit(world, *more, method="auto"):
    assert (
        main(["calibrate", "fit", str(world.model), "--method", method, "--keys", "60", "-np", "1", *more])
        == 0
    )
    return json.loads((world.model / STORE / "calibration.json").read_text())


def apply(world, *source, out=None, model=None):
    out = out or world.root / "out"
    code = main(["calibrate", "apply", str(model or world.model), *source, "-o", str(out), "-np", "1"])
    return out, code


def calibrated(out, world):
    assert apply(world, "--cross-fitted", out=out)[1] == 0
    found = predictions.of_model(out, DATASET)
    regions = world.regions
    return {
        it.case: predictions.read_probabilities(it.path, num_classes=2 if regions else 3, regions=regions)
        for it in found.cases
    }


def pairs(world, probs, kind="raters"):
    both = [(p.reshape(len(p), -1), world.reference(case, kind)) for case, p in probs.items()]
    return [as_classes(*it) for it in both] if world.regions else both
