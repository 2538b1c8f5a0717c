from tests.evaluation.conftest import eval_world

__all__ = ["eval_world"]
