"""What the doctor says: one line per check, and one per step of the way of the fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nnunet_dml._checks import InputError

Level = Literal["ok", "note", "wrong"]
MOST_LINES = 10  # of one kind of problem


@dataclass(frozen=True)
class Finding:
    """One check: what it is about, what was found and, unless all is well, what to do.

    Its level is `ok`, `wrong`, or `note`: no fault, but something that has to be done or known sooner or later.
    """

    level: Level
    about: str
    text: str


@dataclass(frozen=True)
class Step:
    """One step of the labels on their way to the loss.

    Attributes:
        name: The step.
        share: Share of fractional voxels after it, 0 … 1; None where it could not be measured.
        error: Greatest absolute difference of a fraction from the step before, None where voxels don't correspond.
        level: Whether the step is as it should be.
        remark: What is to be said of it.
    """

    name: str
    share: float | None
    error: float | None = None
    level: Level = "ok"
    remark: str = ""


@dataclass(frozen=True)
class Report:
    """All that was found."""

    installation: Sequence[Finding]
    dataset: Sequence[Finding] = ()
    title: str = ""  # of the steps
    steps: Sequence[Step] = ()

    @property
    def problems(self) -> int:
        """How many checks and steps are wrong."""
        return self._count("wrong")

    @property
    def notes(self) -> int:
        """How many checks and steps have a note, which is no fault."""
        return self._count("note")

    def _count(self, level: Level) -> int:
        rows: list[Finding | Step] = [*self.installation, *self.dataset, *self.steps]
        return sum(row.level == level for row in rows)

    def as_json(self) -> dict[str, Any]:
        """The same as JSON-like values."""
        return {**asdict(self), "problems": self.problems}


def wrong(about: str, error: InputError) -> list[Finding]:
    """One line per problem of an error; the first few of many."""
    lines = [Finding("wrong", about, line.removeprefix(f"{about}: ")) for line in error.problems[:MOST_LINES]]
    if more := len(error.problems) - len(lines):
        lines.append(Finding("wrong", about, f"… and {more} more problems of this kind."))
    return lines
