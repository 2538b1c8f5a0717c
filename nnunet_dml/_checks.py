"""Argument checks and the one wording of errors.

Library functions raise `ValueError` or `TypeError`. Whatever a user can get wrong in a file, a folder or an
option raises `InputError`, which carries one line per problem; the command line prints them and exits with 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


class InputError(ValueError):
    """Bad input of a user: one line per problem, each complete in itself."""

    def __init__(self, *problems: str) -> None:
        """Keep the problems apart, so that many can be reported together.

        Args:
            *problems: One line each: which file or option, what was expected, what was found, what to do.
        """
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type[InputError], tuple[str, ...]]:
        """Keep the lines apart on the way out of a worker process."""
        return type(self), self.problems


def problem(where: str | Path, *, expected: str, found: str, todo: str = "") -> str:
    """One line about one bad file or option.

    >>> problem("a.nii.gz", expected="spacing (1, 1)", found="(2, 1)", todo="Resample it to the image's grid.")
    "a.nii.gz: expected spacing (1, 1), found (2, 1). Resample it to the image's grid."
    """
    line = f"{where}: expected {expected}, found {found}."
    return f"{line} {todo}" if todo else line


def some(items: Iterable[object], most: int = 5) -> str:
    """The first few of a list.

    >>> some("abc", 2)
    'a, b, … (3 in all)'
    """
    rows = [str(item) for item in items]
    return ", ".join(rows[:most]) + (f", … ({len(rows)} in all)" if len(rows) > most else "")


def check_one_of(name: str, value: object, valid: Iterable[object]) -> None:
    """Raise `ValueError` unless `value` is one of `valid`."""
    choices = list(valid)
    if value not in choices:
        raise ValueError(f"Expected argument `{name}` to be one of {choices}, got {value!r}.")


def check_range(name: str, value: float, low: float, high: float, *, open_high: bool = False) -> None:
    """Raise `ValueError` unless `low <= value <= high` (`< high` where `open_high`). NaN is refused."""
    if not (low <= value < high if open_high else low <= value <= high):
        raise ValueError(
            f"Expected argument `{name}` in [{low}, {high}{')' if open_high else ']'}, got {value}."
        )


def check_same_shape(
    name: str, shape: Sequence[int], other: str, other_shape: Sequence[int], *, hint: str = ""
) -> None:
    """Raise `ValueError` unless two shapes are equal.

    >>> check_same_shape("target", (2, 64), "probs", (2, 3, 64), hint="For hard labels call `one_hot` first.")
    Traceback (most recent call last):
    ...
    ValueError: Expected `target` of shape (2, 3, 64) to match `probs`, got (2, 64). For hard labels call `one_hot` first.
    """
    if tuple(shape) != tuple(other_shape):
        message = f"Expected `{name}` of shape {tuple(other_shape)} to match `{other}`, got {tuple(shape)}."
        raise ValueError(f"{message} {hint}" if hint else message)
