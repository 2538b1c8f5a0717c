"""A model of three folds to calibrate."""

import pytest

from tests.cli.calibration_world import World


@pytest.fixture
def world(environment):
    return World(environment)
