"""The documentation's pages, their blocks of code, and the commands in blocks of shell."""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}(?:nnunet-dml|nnUNetv2_\w+|pip|python|bash) .*\n)+", re.MULTILINE)
TOGETHER = ("README.md",)  # the pages that run one after the other on one phantom; see test_readme_runs.py
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")


@dataclass(frozen=True)
class Block:
    """A block of code."""

    page: str
    """Relative to the repository."""
    number: int
    """Of the page's blocks, from 1."""
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"

    @property
    def kind(self) -> str:
        """How a block of shell is tested.

        `installed`: it makes an environment, as these tests' own was made; its extras and files are looked up.
        `run`: a tutorial's; all blocks of its page run, one after the other, on the phantom.
        `together`: README's; they run on the phantom, too, except `test_readme_runs.ONLY_PARSED`.
        `parsed`: everything else, for data, GPUs or clusters that are not there; each command by its own parser.
        """
        words = [it[:2] for it in commands(self.code)]
        if words and all(it[0] in ("pip", ".") or it == ["python", "-m"] for it in words):
            return "installed"
        if self.page in TOGETHER:
            return "together"
        return "run" if self.page.startswith("docs/tutorials/") else "parsed"


def pages() -> list[Path]:
    """README.md and the documentation's."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(language: str) -> list[Block]:
    """All blocks of a language, in order; of bash also indented commands, which come last."""
    found = []
    for page in pages():
        name = page.relative_to(ROOT).as_posix()
        text = page.read_text(encoding="utf-8")
        indented = [("bash", textwrap.dedent(it)) for it in INDENTED.findall(BLOCK.sub("", text))]
        for number, (kind, code) in enumerate([*BLOCK.findall(text), *indented], start=1):
            if kind == language:
                found.append(Block(name, number, kind, code))
    return found


def commands(code: str) -> list[list[str]]:
    """The words of each command, without comments and the variables that are set for it."""
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and ASSIGNMENT.fullmatch(words[0]):
            words = words[1:]
        if words:
            found.append(words)
    return found
