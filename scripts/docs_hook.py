"""mkdocs' hook: the results' pages in the navigation. `mkdocs build --strict` calls it (see mkdocs.yml)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace `FOLDER/*.md` in the navigation by the folder's pages, so that a new result needs no line there."""
    for entry in config.nav or []:
        for title, pages in entry.items():
            if isinstance(pages, list):
                entry[title] = [page for it in pages for page in _expanded(it, Path(config.docs_dir))]
    return config


def _expanded(entry: Any, docs: Path) -> list[Any]:
    if not isinstance(entry, str) or "*" not in entry:
        return [entry]
    return sorted(path.relative_to(docs).as_posix() for path in docs.glob(entry))
