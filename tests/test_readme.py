"""What the README shows is what the package does."""

from __future__ import annotations

import re
import shlex

import pytest

from nnunet_dml.cli.main import build_parser
from nnunet_dml.nnunet import trainers
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", [code for language, code in BLOCKS if language == "python"])
def test_python_blocks_print_what_their_comments_say(code, capsys):
    exec(code, {})
    printed = [float(n) for n in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", capsys.readouterr().out)]
    values = [eval(n) for group in re.findall(r"# → ([\d./, ]+)", code) for n in group.split(",")]
    assert values
    assert printed == pytest.approx(values, abs=1e-4)


def commands():
    for language, code in BLOCKS:
        if language == "bash":
            for line in code.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["nnunet-dml"]:
                    yield words[1:]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_commands_parse(arguments):
    build_parser().parse_args(arguments)


def test_every_trainer_is_listed_and_every_listed_trainer_exists():
    assert {name.split("__")[0] for name in re.findall(r"nnUNetTrainer\w+", README)} == set(trainers.__all__)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
