"""mkdocs' hook: the reference pages that are made of the code, and the results' pages in the navigation.

`mkdocs build --strict` calls it (see mkdocs.yml). Pages are made in memory; nothing is written beside the sources.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from nnunet_dml.cli.main import build_parser
from nnunet_dml.evaluation.measures import MEASURES
from nnunet_dml.nnunet.option_groups import Options
from nnunet_dml.nnunet.options import listing


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


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of the code."""
    for uri, content in generated_pages().items():
        files.append(File.generated(config, uri, content=content))
    return files


def generated_pages() -> dict[str, str]:
    """The Markdown of each page that is made of the code, by its path in `docs`."""
    return {
        "reference/cli.md": cli_page(),
        "reference/options.md": options_page(),
        "reference/measures.md": measures_page(),
    }


def cli_page() -> str:
    """All commands with all arguments, from the parser that reads them."""
    lines = [
        "# Commands",
        "",
        "Made of the code that parses the arguments. Every command has `--help`; `nnunet-dml train` hands all its "
        "arguments to `nnUNetv2_train`. The exit status is 0, or 2 for bad input, with a line per problem.",
    ]
    with mock.patch.dict(
        os.environ, {"COLUMNS": "100", "nnUNet_def_n_proc": ""}
    ):  # the same on every machine
        for name, parser, depth in commands(build_parser()):
            lines += _command(name, parser, depth)
    return "\n".join(lines) + "\n"


def commands(parser: argparse.ArgumentParser, depth: int = 1) -> Iterator[tuple[str, Any, int]]:
    """Name, parser and depth of every command below a parser, in order."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                path = f"{parser.prog} {name}"
                yield path, sub, depth
                yield from commands(sub, depth + 1)


def _command(name: str, parser: argparse.ArgumentParser, depth: int) -> list[str]:
    usage = parser.format_usage().removeprefix("usage: ").rstrip()
    lines = ["", f"{'#' * (depth + 1)} {name}", "", _text(parser.description or ""), ""]
    lines += ["```text", usage, "```"]
    arguments = [
        a for a in parser._actions if not isinstance(a, (argparse._HelpAction, argparse._SubParsersAction))
    ]
    if arguments:
        lines += ["", "| argument | meaning |", "|---|---|"]
        lines += [f"| {_flags(it)} | {_text(_help(it))} |" for it in arguments]
    if parser.epilog:
        lines += ["", "```text", parser.epilog.strip("\n"), "```"]
    return lines


def _flags(action: argparse.Action) -> str:
    """The flags of an argument with what they take, as code."""
    if action.nargs == 0:
        values = ""
    elif isinstance(action.metavar, tuple):
        values = " ".join(action.metavar)
    else:
        default = action.dest if not action.option_strings else action.dest.upper()
        values = action.metavar or ("|".join(map(str, action.choices)) if action.choices else default)
        values += " …" if action.nargs in ("+", "*") else ""
    names = ", ".join(action.option_strings)
    return _code(f"{names} {values}".strip() if names else values)


def _help(action: argparse.Action) -> str:
    fields = {name: getattr(action, name, None) for name in ("default", "dest", "metavar", "choices", "prog")}
    return (action.help or "") % fields


def options_page() -> str:
    """All options with types and defaults, from the models that check them."""
    lines = [
        "# Options",
        "",
        "Made of the models that check the options; `nnunet-dml configure --list` prints the same. They are set by "
        "`nnunet-dml configure --set NAME=VALUE` and stand in the plans file under `nnunet_dml`. The defaults here are the "
        "general ones; a [trainer](../how-to/trainers.md) has its own for some, which options override.",
    ]
    rows: dict[str, list[str]] = {name: [] for name in Options.model_fields}
    for name, kind, default, description in listing():
        cells = (_code(name), _text(_kind(kind)), _code(_value(default)), _text(description))
        rows[name.split(".")[0]].append(f"| {' | '.join(cells)} |")
    for name, field in Options.model_fields.items():
        said = (field.annotation.__doc__ or "").splitlines()[0]  # type: ignore[union-attr]
        lines += [
            "",
            f"## {name}",
            "",
            _text(said),
            "",
            "| option | values | default | meaning |",
            "|---|---|---|---|",
        ]
        lines += rows[name]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """A default as `--set` takes it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _kind(kind: str) -> str:
    """A type in words."""
    kind = re.sub(r"one of \[([^\]]*)\]", lambda it: it[1].replace("'", ""), kind)
    words = {
        "float": "number",
        "int": "whole number",
        "bool": "true, false",
        "str": "text",
        "NoneType": "none",
        "None": "none",
    }
    kind = re.sub(r"\b(float|int|bool|str|NoneType|None)\b", lambda it: words[it[1]], kind)
    kind = re.sub(r"tuple\[(.*), \.\.\.\]", r"[\1, …]", kind)
    kind = re.sub(r"dict\[text, number\]", "weights by name", kind)
    return kind.replace(" | ", " or ")


def measures_page() -> str:
    """All figures of an evaluation, from the table that the report prints them by."""
    lines = [
        "# Measures",
        "",
        "Made of the table that reports are printed by. A column of `cases.csv` has the name on the left; fractions there are "
        "fractions, in tables they are per cent. `summary.json` says under `definitions` how each figure was measured.",
    ]
    group = ""
    for measure in MEASURES.values():
        if measure.group != group:
            group = measure.group
            lines += [
                "",
                f"## {group}",
                "",
                "| name | title | unit | better | what it is |",
                "|---|---|---|---|---|",
            ]
        better = {"zero": "near 0"}.get(measure.better, measure.better)
        cells = (_code(measure.name), measure.title, measure.unit, better, measure.definition)
        lines.append(f"| {cells[0]} | " + " | ".join(_text(it) for it in cells[1:]) + " |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """Text as code in a cell of a table."""
    return f"`{text}`".replace("|", "\\|")


def _text(text: str) -> str:
    """Plain text in Markdown: code between backticks stays, everything else is literal; fits a cell of a table."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    parts[::2] = [re.sub(r"([\\*_\[\]])", r"\\\1", it).replace("<", "&lt;") for it in parts[::2]]
    return "".join(parts).replace("|", "\\|")
