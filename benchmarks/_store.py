"""Rows on disk: each as it was measured, so that one can be measured anew and the page is still of all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks._timing import Row


def save(row: Row, folder: Path) -> None:
    """As JSON, under the row's name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{row.name}.json").write_text(
        json.dumps(asdict(row), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def load(folder: Path, names: Sequence[str]) -> list[Row]:
    """Those that are there, in this order; the others as rows of which everything is missing."""
    adapter = TypeAdapter(Row)
    rows = []
    for name in names:
        path = folder / f"{name}.json"
        if path.is_file():
            rows.append(adapter.validate_python(json.loads(path.read_text(encoding="utf-8"))))
        else:
            rows.append(Row(name, name, "It was not measured.", missing=[name]))
    return rows
