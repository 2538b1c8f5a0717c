"""Two classes, labelled and unlabelled images, for each module of tests."""

from __future__ import annotations

import pytest

from tests.nnunet.ssl_world import enter, make_world


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield make_world(patch, tmp_path_factory.mktemp("ssl"), "Dataset950_Ssl")


@pytest.fixture
def world(made, monkeypatch):
    return enter(monkeypatch, made)
