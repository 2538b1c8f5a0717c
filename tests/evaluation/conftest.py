import pytest

from tests.evaluation.evaluation_world import World


@pytest.fixture
def eval_world(environment):
    return World(environment)
