"""Tables as plain text, Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nnunet_dml.report.tables import Cell, Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def plain(table: Table) -> str:
    """The table for a terminal, aligned; a group's name stands above its rows."""
    cells = [table.columns, *([_flat(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]

    def line(row: list[str]) -> str:
        first, *others = [
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join([first, *others]).rstrip()

    lines = [line(table.columns)]
    for k, row in enumerate(cells[1:]):
        if k in table.groups:
            lines += ["", table.groups[k]]
        lines.append(line(row))
    return "\n".join(lines)


def markdown(table: Table) -> str:
    r"""The table in GitHub's Markdown; a group is a row of its own, the best value is bold.

    >>> markdown(Table("t", ["a|b", "c"], [[Cell("<x>"), Cell("1", best=True)]]))
    '| a\\|b | c |\n|---|---:|\n| &lt;x&gt; | **1** |'
    """
    lines = [_row(_markdown(it) for it in table.columns), "|---|" + "---:|" * (len(table.columns) - 1)]
    for k, row in enumerate(table.rows):
        if k in table.groups:
            lines.append(_row([f"*{_markdown(table.groups[k])}*", *([""] * (len(table.columns) - 1))]))
        lines.append(_row(f"**{_markdown(_flat(it))}**" if it.best else _markdown(_flat(it)) for it in row))
    return "\n".join(lines)


def latex(table: Table) -> str:
    r"""The table for LaTeX with the package booktabs; everything special is escaped.

    >>> print(latex(Table("50 %", ["a_b", "c"], [[Cell("x & y"), Cell("1", best=True)]])))
    \begin{table}
    \centering
    \caption{50 \%}
    \begin{tabular}{lr}
    \toprule
    a\_b & c \\
    \midrule
    x \& y & \textbf{1} \\
    \bottomrule
    \end{tabular}
    \end{table}
    """
    width = len(table.columns)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(table.caption)}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}", r"\toprule"]
    lines.append(" & ".join(map(escape_latex, table.columns)) + r" \\")
    for k, row in enumerate(table.rows):
        if k == 0 or k in table.groups:
            lines.append(r"\midrule")
        if k in table.groups:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape_latex(table.groups[k])}}}}} \\")
        texts = [escape_latex(_flat(it)) for it in row]
        cells = [rf"\textbf{{{text}}}" if it.best else text for it, text in zip(row, texts, strict=True)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def escape_latex(text: str) -> str:
    r"""Text whose special signs LaTeX prints.

    >>> escape_latex("a_b \\ 5 % < 6")
    'a\\_b \\textbackslash{} 5 \\% \\textless{} 6'
    """
    return re.sub("|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match[0]], text)


def _flat(cell: Cell) -> str:
    return f"{cell.text} ({cell.interval})" if cell.interval else cell.text


def _markdown(text: str) -> str:
    for sign, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, code)
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", text).replace("\n", " ")


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
