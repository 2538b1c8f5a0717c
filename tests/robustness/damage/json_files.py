"""Damage to files of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.robustness.damage.files import Damage


def at(*place: Any, value: Any) -> Damage:
    """A value in an object of objects replaced."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        path.write_text(json.dumps(content))

    return change


def as_json(value: Any) -> Damage:
    """Another value."""
    return lambda path: path.write_text(json.dumps(value))


def deep(path: Path) -> None:
    """More brackets than Python's stack takes."""
    path.write_text("[" * 200_000)


def a_bom(path: Path) -> None:
    """UTF-16, as some editors save."""
    path.write_bytes(path.read_text().encode("utf-16"))


def doubled(path: Path) -> None:
    """Two processes wrote into one file."""
    path.write_bytes(path.read_bytes() * 2)


def changed(**changes: Any) -> Damage:
    """Keys of an object replaced; None removes one, a function gets the old value."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        for key, value in changes.items():
            if value is None:
                del content[key]
            else:
                content[key] = value(content[key]) if callable(value) else value
        path.write_text(json.dumps(content))

    return change
