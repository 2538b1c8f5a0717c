"""The pages of docs/reference that are made of the code: commands, options, measures.

python scripts/reference_pages.py [docs/reference]
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from nnunet_dml.cli.main import build_parser
from nnunet_dml.evaluation.measures import MEASURES
from nnunet_dml.nnunet.option_groups import Options

HERE = Path(__file__).resolve().parent.parent / "docs" / "reference"
COMMENT = "<!-- Written by scripts/reference_pages.py: change the code and run it. -->"
WIDTH = 100  # of a usage
KINDS = {float: "number", int: "whole number", bool: "true, false", str: "text", type(None): "none"}


def pages() -> dict[str, str]:
    """The Markdown of each page, by the name of its file."""
    made = {"cli.md": cli_page(), "options.md": options_page(), "measures.md": measures_page()}
    return {name: "\n".join([COMMENT, "", *lines]) + "\n" for name, lines in made.items()}


def cli_page() -> list[str]:
    """All commands with all arguments, from the parser that reads them."""
    lines = [
        "# Commands",
        "",
        "Made of the code that parses the arguments. Every command has `--help`; `nnunet-dml train` hands all its "
        "arguments to `nnUNetv2_train`. The exit status is 0, or 2 for bad input, with a line per problem; 130 after an interruption; 2 of `doctor` "
        "where anything is wrong, 1 of `benchmark run` where a training failed, nnU-Net's own of `train`.",
    ]
    for parser, said, depth in commands(build_parser()):
        lines += ["", f"{'#' * (depth + 1)} {parser.prog}", "", _text(said), ""]
        lines += ["```text", *usage(parser), "```"]
        if arguments := _arguments(parser):
            lines += ["", "| argument | meaning |", "|---|---|"]
            lines += [f"| {_code(_flags(it, ', '))} | {_text(_help(it))} |" for it in arguments]
        if parser.epilog:
            lines += ["", "```text", parser.epilog.strip("\n"), "```"]
    return lines


def commands(
    parser: argparse.ArgumentParser, depth: int = 1
) -> Iterator[tuple[argparse.ArgumentParser, str, int]]:
    """Parser, description and depth of every command below a parser, in order."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                sub = action.choices[choice.dest]
                yield sub, sub.description or choice.help or "", depth
                yield from commands(sub, depth + 1)


def _arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        it for it in parser._actions if not isinstance(it, (argparse._HelpAction, argparse._SubParsersAction))
    ]


def usage(parser: argparse.ArgumentParser) -> list[str]:
    """How a command is called; argparse's own text differs with Python's version, the terminal and its colours."""
    if parser.usage:
        return parser.usage.splitlines()
    groups = {id(it): group for group in parser._mutually_exclusive_groups for it in group._group_actions}
    options, places, grouped = [], [], set()
    for it in _arguments(parser):
        group = groups.get(id(it))
        if group in grouped:
            continue
        if group is not None:
            grouped.add(group)
            choices = " | ".join(_flags(one) for one in group._group_actions)
            options.append(f"({choices})" if group.required else f"[{choices}]")
        else:
            required = it.required and it.nargs != argparse.REMAINDER
            (options if it.option_strings else places).append(_flags(it) if required else f"[{_flags(it)}]")
    subcommands = [it for it in parser._actions if isinstance(it, argparse._SubParsersAction)]
    places += [f"{it.metavar} …" for it in subcommands]
    words = [it.replace(" ", "\0") for it in (parser.prog, *options, *places)]  # none is broken at its spaces
    lines = textwrap.wrap(
        " ".join(words), WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return [it.replace("\0", " ") for it in lines]


def _flags(action: argparse.Action, joined_by: str = "") -> str:
    """The flags of an argument, or the first one only, and what they take."""
    if action.nargs == 0:
        values = ""
    elif isinstance(action.metavar, tuple):
        values = " ".join(action.metavar)
    else:
        default = action.dest if not action.option_strings else action.dest.upper()
        values = action.metavar or ("|".join(map(str, action.choices)) if action.choices else default)
        values += " …" if action.nargs in ("+", "*", argparse.REMAINDER) else ""
    names = joined_by.join(action.option_strings if joined_by else action.option_strings[:1])
    return f"{names} {values}".strip()


def _help(action: argparse.Action) -> str:
    fields = {name: getattr(action, name, None) for name in ("default", "dest", "metavar", "choices", "prog")}
    return (action.help or "") % fields


def options_page() -> list[str]:
    """All options with types and defaults, from the models that check them."""
    lines = [
        "# Options",
        "",
        "Made of the models that check the options; `nnunet-dml configure --list` prints the same. They are set by "
        "`nnunet-dml configure --set NAME=VALUE` and stand in the plans file under `nnunet_dml`. The defaults here are the "
        "general ones; a [trainer](../how-to/trainers.md) has its own for some, which options override.",
    ]
    for name, group in Options.model_fields.items():
        model: Any = group.annotation
        lines += ["", f"## {name}", "", _text(model.__doc__.splitlines()[0]), ""]
        lines += ["| option | values | default | meaning |", "|---|---|---|---|"]
        for option, field in model.model_fields.items():
            default = _code(_value(field.default))
            cells = (_code(f"{name}.{option}"), _text(_kind(field.annotation)), default)
            lines.append(f"| {' | '.join(cells)} | {_text(field.description or '')} |")
    return lines


def _value(value: Any) -> str:
    """A default as `--set` takes it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _kind(annotation: Any) -> str:
    """A type in words."""
    origin, of = get_origin(annotation), get_args(annotation)
    if origin is None:
        return KINDS[annotation]
    if origin is Annotated:
        return _kind(of[0])
    if origin is Literal:
        return ", ".join(map(str, of))
    if origin in (Union, types.UnionType):
        return " or ".join(map(_kind, of))
    if origin is tuple:
        return f"[{_kind(of[0])}, …]"
    return {dict[str, float]: "weights by name"}[annotation]


def measures_page() -> list[str]:
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
            lines += ["", f"## {group}", ""]
            lines += ["| name | title | unit | better | what it is |", "|---|---|---|---|---|"]
        better = {"zero": "near 0"}.get(measure.better, measure.better)
        cells = (measure.title, measure.unit, better, measure.definition)
        lines.append(f"| {_code(measure.name)} | " + " | ".join(map(_text, cells)) + " |")
    return [
        *lines,
        "",
        "## Pooled",
        "",
        "The means over cases of calibration errors hide where cases err in opposite directions, and grow with few voxels in a bin. "
        "`…_pooled` are the same errors of all cases' voxels together, in `mean` of `summary.json`: `ece_pooled`, "
        "`foreground_ece_pooled`, `boundary_ece_pooled`, and with `soft_` before the name those against the raters' mean.",
    ]


def _code(text: str) -> str:
    """Text as code in a cell of a table."""
    return f"`{text}`".replace("|", "\\|")


def _text(text: str) -> str:
    """Plain text in Markdown: code between backticks stays, everything else is literal; fits a cell of a table."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    parts[::2] = [re.sub(r"([\\*_\[\]])", r"\\\1", it).replace("<", "&lt;") for it in parts[::2]]
    return "".join(parts).replace("|", "\\|")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, content in pages().items():
        (folder / name).write_text(content, encoding="utf-8", newline="\n")
