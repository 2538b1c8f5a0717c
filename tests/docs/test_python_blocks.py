"""Every block of Python in the documentation runs, and prints what its comments say."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from nnunet_dml.benchmark.grid import Grid
from tests.docs.pages import Block, blocks

NUMBER = r"(?<![\w.])-?\d+\.?\d*(?:e-?\d+)?"


def heavy(block: Block):
    """MONAI's import takes longer than all else here."""
    return pytest.param(block, marks=pytest.mark.slow if "monai" in block.code else (), id=str(block))


@pytest.mark.filterwarnings("ignore")  # of other packages, at import
@pytest.mark.parametrize("block", [heavy(it) for it in blocks("python")])
def test_blocks_print_what_their_comments_say(block: Block, capsys):
    exec(block.code, {"__name__": "__main__"})
    printed = [float(n) for n in re.findall(NUMBER, re.sub(r"dtype=\w+\.\w+", "", capsys.readouterr().out))]
    said = [eval(n) for group in re.findall(r"# → ([\d./, ]+)", block.code) for n in group.split(",")]
    assert printed == pytest.approx(said, abs=1e-4)
    assert said or "print(" not in block.code


def test_json_blocks_are_json():
    for block in blocks("json"):
        assert isinstance(json.loads(block.code), dict)


def test_yaml_blocks_are_grids():
    for block in blocks("yaml"):
        assert Grid.model_validate(yaml.safe_load(block.code)).datasets
