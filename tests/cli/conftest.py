from tests.evaluation.conftest import environment, eval_world

__all__ = ["environment", "eval_world"]
