"""The report's page as a file."""

import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import pytest

from nnunet_dml.evaluation.folder import read_evaluation
from nnunet_dml.report.html import case_table
from tests.report.conftest import NAMES
from tests.report.evaluation_world import change_records, write_evaluation

VOID = {"meta", "link", "input", "img", "br", "wbr"}


class Page(HTMLParser):
    """Elements, ids, links and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.texts = [], Counter(), Counter(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags[tag] += 1
        if "id" in found:
            self.ids[found["id"]] += 1
        self.links += [found[it] for it in ("href", "src", "xlink:href") if it in found]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data.strip())


@pytest.fixture(scope="module")
def page(report_page):
    return Page(report_page.read_text(encoding="utf-8"))


def test_names_are_escaped_and_shown_as_they_are(page, report_page):
    assert page.tags["script"] == 1
    assert page.tags["b"] == 0
    for name in (*NAMES, "<b>bold", "_hidden_"):
        assert name in page.texts, name
    assert "<b>bold" not in report_page.read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_nothing_else(page, report_page):
    assert page.open == []
    assert [name for name, count in page.ids.items() if count > 1] == []
    inside = {f"#{name}" for name in page.ids}
    assert {link for link in page.links if link not in inside and not link.startswith("data:")} == set()
    text = report_page.read_text(encoding="utf-8")
    assert "@import" not in text
    assert "url(http" not in text
    assert len(text) < 5e6


def test_every_section_and_figure_is_there(page):
    for anchor in (
        "summary",
        "comparison",
        "reliability",
        "confidence",
        "bdice",
        "volume",
        "pictures",
        "cases",
    ):
        assert page.ids[anchor] == 1, anchor
    # 3 zones × 2 references, 3 histograms, a threshold curve, and two volume figures of each of four models
    assert page.tags["svg"] == 6 + 3 + 1 + 8
    assert page.tags["img"] == 3 * 4
    headings = [it for it in page.texts if it.startswith(("Best:", "Median:", "Worst:"))]
    assert len(headings) == 3


def test_figures_take_the_pages_colours(report_page):
    text = report_page.read_text(encoding="utf-8")
    svg = text[text.index("<svg") : text.rindex("</svg>")]
    assert "var(--series-1)" in svg
    assert "currentColor" in svg
    assert "#1f2a37" not in svg
    assert "DejaVu" not in svg
    assert "<style" not in svg


def test_figures_and_tables_beside_it(report_page):
    base = report_page.parent
    names = {path.name for path in (base / "figures").iterdir()}
    assert {"reliability.svg", "reliability.png", "soft-reliability-boundary.svg", "bdice-1.png"} <= names
    assert {"case-best-1.svg", "case-median-1.png", "case-worst-1.png", "volume-1-4.svg"} <= names
    markdown, latex = ((base / name).read_text(encoding="utf-8") for name in ("tables.md", "tables.tex"))
    assert "| &lt;b&gt;bold |" in markdown
    assert r"\textless{}b\textgreater{}bold" in latex
    assert r"\_hidden\_" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2


def test_the_table_of_cases_of_one_model_and_of_several(tmp_path):
    one = read_evaluation(write_evaluation(tmp_path / "one", cases=2, classes=("core", "rim")))
    heads, rows = case_table([one])
    assert heads[:6] == ["Case", "Fold", "Dice (%)", "Dice (%), core", "Dice (%), rim", "BDice (%)"]
    assert {"ECE per image (%)", "Soft ECE per image (%)"} < set(heads)
    assert len(set(heads)) == len(heads)
    core, rim = one.values("dice")[0]
    assert rows[0][:5] == ["case000", "0", *(f"{100 * it:.2f}" for it in ((core + rim) / 2, core, rim))]
    write_evaluation(tmp_path / "two", cases=3, classes=("core", "rim"))
    change_records(tmp_path / "two", lambda it: it["per_class"]["core"].update(dice=None))
    two = read_evaluation(tmp_path / "two")
    heads, rows = case_table([one, two])
    assert heads[2:4] == ["Dice (%), one", "Dice (%), two"]
    assert rows[2][:3] == ["case002", "2", "–"]
    assert rows[0][3] == f"{100 * two.values('dice')[0, 1]:.2f}"


@pytest.mark.parametrize("module", ["build", "disputed"])
def test_the_room_of_reports_needs_no_torch(module):
    code = (
        f"import sys, nnunet_dml.report.{module}; print(sorted({{'torch', 'nnunetv2'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
