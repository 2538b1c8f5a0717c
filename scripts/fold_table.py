"""Compare evaluations fold by fold: mean ± standard deviation over the folds of each fold's mean.

    python scripts/fold_table.py EVALUATION_FOLDER …

A row per folder of `nnunet-dml evaluate -o`, in per cent, as Markdown. Dice and BDice are means over cases and classes,
ECE is per image. The last column is the paired difference of Dice to the first folder named: its mean over the folds
that both have, and in how many of them it is higher.
"""

import sys
from pathlib import Path

import pandas as pd


def by_fold(folder: Path) -> pd.DataFrame:
    """The figures of every fold, in per cent."""
    cases = pd.read_csv(folder / "cases.csv")
    classes, everything = cases[cases["class"] != "all"], cases[cases["class"] == "all"]
    table = classes.groupby(["fold", "case"])[["dice", "bdice"]].mean().groupby("fold").mean()
    table["ece"] = everything.groupby("fold")["ece"].mean()
    return 100 * table


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folders = [Path(name) for name in sys.argv[1:]]
    first = by_fold(folders[0])
    print("| model | folds | Dice | BDice | ECE per image | Dice, paired difference |")
    print("|---|---|---|---|---|---|")
    for folder in folders:
        table = by_fold(folder)
        difference = (table["dice"] - first["dice"]).dropna()
        name = folder.parent.name if folder.name == "evaluation" else folder.name
        cells = [f"{table[it].mean():.2f} ± {table[it].std():.2f}" for it in ("dice", "bdice", "ece")]
        paired = (
            ""
            if folder is folders[0]
            else f"{difference.mean():+.2f} ({(difference > 0).sum()} of {len(difference)})"
        )
        print(f"| {name} | {len(table)} | {' | '.join(cells)} | {paired} |")
