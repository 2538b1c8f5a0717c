"""The documentation's pages, their blocks of code, and the commands in blocks of shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}(?:nnunet-dml|nnUNetv2_\w+|pip|python|bash) .*\n)+", re.MULTILINE)
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")
LOOP = re.compile(r"for \w+ in [^;]+; do|done")


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
        `run`: such blocks of a page run one after the other on a phantom; but for commands that `test_pages_run.PAGES` names.
        `parsed`: the results', of real data and of days; each command by its own parser.
        """
        words = [it[:2] for it in commands(self.code)]
        if words and all(it[0] in ("pip", ".") or it == ["python", "-m"] for it in words):
            return "installed"
        return "parsed" if self.page.startswith("docs/results/") else "run"


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
    """The words of each command, without comments, the loops around it and the variables that are set for it."""
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and ASSIGNMENT.fullmatch(words[0]):
            words = words[1:]
        if words and not LOOP.fullmatch(line):
            found.append(words)
    return found


def script(page: str) -> str:
    """A page's blocks that run, in order, a command a line."""
    code = "".join(it.code for it in blocks("bash") if it.page == page and it.kind == "run")
    return code.replace("\\\n", " ")


def run_bash(code: str, folder: Path, *first: Path) -> None:
    """Run a script in a folder with the repository's scripts, without nnU-Net's variables; its end is shown if it fails.

    Args:
        code: The script.
        folder: Where.
        first: Folders to look for commands before those of this Python's environment.
    """
    if not (folder / "scripts").exists():
        (folder / "scripts").symlink_to(ROOT / "scripts")
    path = os.pathsep.join([*map(str, first), str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
    done = subprocess.run(
        ["bash", "-exuo", "pipefail", "-c", code],
        cwd=folder,
        env={**kept, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
