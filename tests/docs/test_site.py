"""The documentation's site: it builds, its reference is complete, its links and figures are right."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from nnunet_dml.cli.main import COMMANDS
from nnunet_dml.nnunet import trainers
from tests.conftest import ROOT, run
from tests.docs.pages import DOCS, pages

README = ROOT / "README.md"
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)[^>]+src=\"?https?:"
    r"|<link(?=[^>]*rel=\"?(?:stylesheet|preconnect|preload))[^>]*href=\"?https?:|url\(https?:"
)


def text_of(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_site_builds_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs")
    run(
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        ROOT / "mkdocs.yml",
        "-d",
        tmp_path / "site",
    )
    made = sorted((tmp_path / "site").rglob("*.html"))
    assert len(made) > 25
    assert not [it.name for it in made if FETCHED.search(it.read_text(encoding="utf-8"))]
    commands = (tmp_path / "site" / "reference" / "cli.html").read_text(encoding="utf-8")
    assert all(
        f"nnunet-dml {it}</h2>" in re.sub(r"<a class=\"headerlink.*?</a>", "", commands) for it in COMMANDS
    )
    python = (tmp_path / "site" / "reference" / "python.html").read_text(encoding="utf-8")
    assert 'id="nnunet_dml.losses.dice_semimetric_loss"' in python
    assert 'id="nnunet_dml.metrics.bdice"' in python


@pytest.mark.parametrize(
    ("tag", "fetches"),
    [
        ('<script src="https://cdn.org/x.js">', True),
        ('<link href="https://fonts.org" rel="preconnect">', True),
        ('<link rel="stylesheet" href="https://cdn.org/x.css">', True),
        ('<link rel="stylesheet" href="../assets/x.css">', False),
        ('<a href="https://github.com">', False),
    ],
)
def test_what_a_page_fetches_is_recognised(tag, fetches):
    assert bool(FETCHED.search(tag)) == fetches


@pytest.mark.parametrize("name", ["dice", "result"])
def test_pictures_are_what_their_scripts_draw(name, tmp_path):
    (target,) = re.findall(
        r"docs/pictures/([\w-]+\.svg)\]", (ROOT / "scripts" / f"{name}_figure.py").read_text()
    )
    run(sys.executable, ROOT / "scripts" / f"{name}_figure.py", tmp_path / target)
    assert (tmp_path / target).read_bytes() == (DOCS / "pictures" / target).read_bytes()


def test_pages_made_of_the_code_are_what_it_says_on_every_terminal(tmp_path):
    terminal = {
        "COLUMNS": "40",
        "FORCE_COLOR": "1",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "nnUNet_def_n_proc": "7",
    }
    run(sys.executable, ROOT / "scripts" / "reference_pages.py", tmp_path, **terminal)
    made = {it.name: it.read_bytes() for it in tmp_path.iterdir()}
    assert set(made) == {"cli.md", "options.md", "measures.md"}
    for name, content in made.items():
        stale = (DOCS / "reference" / name).read_bytes() != content
        assert not stale, (
            f"docs/reference/{name} is not what the code says: run `python scripts/reference_pages.py`"
        )


def test_every_trainer_is_listed_and_every_listed_trainer_exists():
    listed = set(
        re.findall(r"`(nnUNetTrainer\w+)`", (DOCS / "how-to" / "trainers.md").read_text(encoding="utf-8"))
    )
    assert listed == set(trainers.__all__)
    named = {
        it.split("__")[0]
        for page in pages()
        for it in re.findall(r"nnUNetTrainer\w+", page.read_text(encoding="utf-8"))
    }
    assert named <= {*trainers.__all__, "nnUNetTrainer"}


@pytest.mark.parametrize("page", pages(), ids=lambda it: it.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in set(re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text_of(page))):
        assert (page.parent / link).exists(), link


def test_quoted_figures_stand_where_the_link_leads():
    page = DOCS / "explanation" / "limits.md"
    quoted = 0
    for item in re.findall(r"^\* (.*)$", text_of(page), re.MULTILINE):
        links = re.findall(r"\(\.\./results/([\w-]+\.md)", item)
        numbers = re.findall(r"\d+\.\d+(?:e-?\d+)?|\d+,\d+", re.sub(r"\([^)]*\.md[^)]*\)", "", item))
        source = "".join(
            (DOCS / "results" / it).read_text(encoding="utf-8")
            for it in links or [it.name for it in (DOCS / "results").glob("*.md")]
        )
        quoted += len(numbers)
        assert not [
            it for it in numbers if not re.search(rf"(?<![\d.,]){re.escape(it)}(?!\d|[.,]\d)", source)
        ], item
    assert quoted > 10


def test_readme_stays_short_and_its_picture_small():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8")):
        assert (ROOT / picture).stat().st_size < 200_000
