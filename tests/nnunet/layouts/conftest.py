"""What the tests of the layouts share."""

from __future__ import annotations

import json

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.convert import convert, convert_raters

NAME = "Dataset501_Test"


@pytest.fixture
def src(tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    return folder


@pytest.fixture
def converted(raw, src):
    """Converts `src` and returns the folder, `dataset.json` and the summary."""

    def run(find=None, **options):
        options = {"dataset": "501_Test", "processes": 1} | options
        result = convert(src, find, **options) if find else convert_raters(src, **options)
        content = json.loads((raw / NAME / "dataset.json").read_text())
        return raw / NAME, content, "\n".join(result.summary())

    return run


@pytest.fixture
def refused(converted, raw):
    """The lines with which a conversion is refused; nothing is written."""

    def run(*arguments, **options):
        with pytest.raises(InputError) as caught:
            converted(*arguments, **options)
        assert not list(raw.iterdir())
        assert not any("\n" in line for line in caught.value.problems)
        return list(caught.value.problems)

    return run
