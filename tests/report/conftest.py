"""A report that several modules look at, made once."""

from __future__ import annotations

import pytest

from nnunet_dml.cli.main import main
from tests.report.evaluation_world import Files, write_evaluation

NAMES = ["<script>alert(1)</script>".replace("/", "∕"), "a & b", "case $x$ \\", "case_10", "case_9"]


@pytest.fixture(scope="session")
def report_page(tmp_path_factory):
    """The path of a report: two models, one calibration, two classes, hostile names of cases, pictures of one class."""
    base = tmp_path_factory.mktemp("report")
    files = Files(base / "files")
    models = {"first": (0.8, 0.1), "second": (0.9, 0.05), "first_cal": (0.8, 0.01), "second_cal": (0.9, 0.01)}
    folders = {
        name: str(write_evaluation(base / name, names=NAMES, quality=q, gap=gap, sources=files))
        for name, (q, gap) in models.items()
    }
    page = base / "report.html"
    arguments = [
        folders["first"],
        folders["second"],
        "--calibrated",
        folders["first_cal"],
        folders["second_cal"],
    ]
    more = ["--names", "<b>bold", "_hidden_", "--resamples", "100", "-o", str(page)]
    texts = [
        "--markdown",
        str(base / "tables.md"),
        "--latex",
        str(base / "tables.tex"),
        "--figures",
        str(base / "figures"),
    ]
    assert main(["report", *arguments, *more, *texts]) == 0
    return page
