"""Each command of the documentation's blocks of shell is understood by the command's own parser, whether it runs elsewhere or not."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from importlib.metadata import entry_points

import pytest

from nnunet_dml.cli import predict
from nnunet_dml.cli.main import build_parser
from tests.conftest import ROOT
from tests.docs.pages import Block, blocks, commands

BLOCKS = blocks("bash")


class _ParsedError(Exception):
    """A parser has read its arguments."""


def parse_own(words: list[str]) -> None:
    """Read the arguments of `nnunet-dml` with its own parser; those that it hands on with nnU-Net's."""
    command, rest = words[0], words[1:]
    if command == "train":
        parse_nnunet("nnUNetv2_train", rest)
    elif command == "predict":
        given, _ = predict.split(rest)
        own = {"--bits", "--no-calibration"}
        kept = [it for i, it in enumerate(rest) if it not in own and rest[i - 1] != "--bits"]
        by_folder = "-m" in given
        parse_nnunet("nnUNetv2_predict_from_modelfolder" if by_folder else "nnUNetv2_predict", kept)
    else:
        build_parser().parse_args(words)


def parse_nnunet(name: str, words: list[str]) -> None:
    """Read arguments with the parser that nnU-Net's command builds, and stop there."""
    (entry,) = entry_points(group="console_scripts", name=name)
    function, real = entry.load(), argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, *_: object) -> None:
        real(parser, words)
        raise _ParsedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        with pytest.raises(_ParsedError):
            function()


def parse_script(words: list[str]) -> None:
    """A script of the repository: it is there, and has every flag that it is given."""
    path = ROOT / words[0]
    text = path.read_text(encoding="utf-8")
    for flag in (it for it in words[1:] if it.startswith("-") and path.suffix == ".py"):
        assert f'"{flag}"' in text, f"{words[0]} has no {flag}"


def understand(words: list[str]) -> None:
    """Read one command; anything that nobody here knows fails."""
    words = [re.sub(r"\$\{?\w+\}?", "0", it) for it in words]  # a variable stands for a number or a path
    name, rest = words[0], words[1:]
    if name == "nnunet-dml":
        parse_own(rest)
    elif name.startswith("nnUNetv2_"):
        parse_nnunet(name, rest)
    elif name in ("bash", "python") and rest[0].split("/")[0] in ("scripts", "benchmarks"):
        parse_script(rest)
    elif name == "export":
        assert all(re.fullmatch(r"nnUNet_\w+=.+", it) for it in rest), rest
    elif name == "pip":
        assert_installable(rest)
    elif name == "git":
        assert rest[0] == "clone"
    elif name == "sbatch":
        assert re.fullmatch(r"[\w-]+\.sh", rest[0])
    else:
        known = (["eval", "$(nnunet-dml env)"], ["mkdir", "-p", *rest[1:]], ["cd", *rest])
        unzip = ["python", "-m", "zipfile", "-e", *rest[3:]]
        assert words in (*known, unzip), f"nobody understands {words}"


def assert_installable(rest: list[str]) -> None:
    """`pip install .` with extras that there are."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    assert rest[0] == "install"
    for target in rest[1:]:
        match = re.fullmatch(r"(?:\.|nnunet-dml|-e)(?:\[([\w,]+)\])?", target)
        assert match, f"pip install {target}"
        for extra in (match[1] or "").split(","):
            assert not extra or f"\n{extra} = [" in extras, f"no extra {extra}"


def test_there_is_what_is_tested():
    assert len(BLOCKS) > 50
    assert Counter(it.kind for it in BLOCKS)["run"] > 50


@pytest.mark.parametrize("block", [it for it in BLOCKS if it.kind != "installed"], ids=str)
def test_commands_are_understood(block: Block):
    found = commands(block.code)
    assert found, "a block without a command"
    for words in found:
        understand(words)


@pytest.mark.parametrize("block", [it for it in BLOCKS if it.kind == "installed"], ids=str)
def test_installations_name_what_there_is(block: Block):
    for words in commands(block.code):
        if words[0] == "pip":
            assert_installable(words[1:])
        else:
            assert words in (["python", "-m", "venv", ".venv"], [".", ".venv/bin/activate"])


@pytest.mark.parametrize(
    "words",
    [
        ["nnunet-dml", "evaluate", "-d", "501", "--modell", "x", "-o", "y"],
        ["nnunet-dml", "train", "501", "2d", "0", "--npzz"],
        ["nnUNetv2_train", "501", "2d", "0", "-trainer", "x"],
        ["nnunet-dml", "predict", "-i", "a", "-o", "b", "-m", "c", "--no-calibrate"],
        ["bash", "scripts/no_such.sh"],
        ["python", "scripts/make_phantom.py", "x", "--rater", "3"],
        ["pip", "install", ".[nothing]"],
        ["rm", "-rf", "x"],
    ],
    ids=" ".join,
)
def test_what_does_not_exist_is_not_understood(words, capsys):
    with pytest.raises((SystemExit, AssertionError, OSError)):
        understand(words)
