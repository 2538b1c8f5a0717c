"""The documentation's pages, their blocks of code, and the commands in blocks of shell."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

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
        `parsed`: everything else, for data, GPUs or clusters that are not there; each command by its own parser.
        """
        words = [it[:2] for it in commands(self.code)]
        if words and all(it[0] in ("pip", ".") or it == ["python", "-m"] for it in words):
            return "installed"
        return "run" if self.page.startswith("docs/tutorials/") else "parsed"


def pages() -> list[Path]:
    """README.md and the documentation's, but for the result pages, whose commands need their data."""
    own = [it for it in sorted(DOCS.rglob("*.md")) if DOCS / "results" not in it.parents]
    return [ROOT / "README.md", *own]


def blocks(language: str) -> list[Block]:
    """All blocks of a language, in order."""
    found = []
    for page in pages():
        name = page.relative_to(ROOT).as_posix()
        for number, (kind, code) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), start=1):
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
