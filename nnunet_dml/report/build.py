"""From evaluations to a report: what is estimated, compared and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml.evaluation.compare import Comparison, compare
from nnunet_dml.evaluation.folder import Evaluation, check_comparable, read_evaluation, read_evaluations
from nnunet_dml.report.figures import all_charts, series_of
from nnunet_dml.report.html import Report
from nnunet_dml.report.pictures import case_pictures
from nnunet_dml.report.tables import by_class, class_table, comparison_table, estimates, summary_table


def read_models(
    folders: Sequence[Path], calibrated: Sequence[Path], names: Sequence[str] | None
) -> tuple[list[Evaluation], list[Evaluation]]:
    """The evaluations of a report.

    Args:
        folders: Of the models.
        calibrated: Of the same models after calibration, in their order; or none.
        names: What to call the models.

    Raises:
        InputError: As `read_evaluations`; or a calibrated evaluation is missing, is of other cases, or would be called
            as one of the models.
    """
    if calibrated and len(calibrated) != len(folders):
        expected, found = f"as many as there are evaluations, {len(folders)}", str(len(calibrated))
        todo = "Give the calibrated evaluations in the order of the others."
        raise InputError(problem("--calibrated", expected=expected, found=found, todo=todo))
    resolved = {folder.resolve() for folder in folders}
    own = [it for it in calibrated if it.resolve() in resolved]
    if own:
        found = "the same folder among the evaluations"
        raise InputError(problem(own[0], expected="an evaluation after calibration", found=found))
    models = read_evaluations(folders, names)
    after = []
    taken = {f"{it.name}, calibrated" for it in models} & {it.name for it in models} if calibrated else set()
    if taken:
        todo = "Give other --names."
        expected = "names that stay different with `, calibrated` behind them"
        raise InputError(problem("--names", expected=expected, found=some(sorted(taken)), todo=todo))
    for model, folder in zip(models, calibrated, strict=False):
        it = read_evaluation(folder, f"{model.name}, calibrated")
        check_comparable(model, it)
        if only := sorted(model.cases.keys() ^ it.cases.keys()):
            expected, found = f"the cases of {model.folder}", f"others: only one of both has {some(only)}"
            todo = "Evaluate the calibrated predictions of the same cases."
            raise InputError(problem(folder, expected=expected, found=found, todo=todo))
        after.append(it)
    return models, after


def build(
    models: Sequence[Evaluation], calibrated: Sequence[Evaluation], *, resamples: int, seed: int
) -> Report:
    """Estimate, compare and draw.

    Args:
        models: The first is the baseline of the comparison.
        calibrated: The same after calibration, or none.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    series = series_of(models, calibrated)
    shown = [it.model for it in series]
    found = [estimates(model, resamples=resamples, seed=seed) for model in shown]
    several = [model for model in shown if len(model.classes) > 1]
    pairs = [(models[0], it) for it in models[1:]] + list(zip(models, calibrated, strict=False))
    comparison, notes = _compared(pairs, resamples=resamples, seed=seed)
    caption = f"{models[0].dataset}, {_counts(shown)}"
    return Report(
        models=list(models),
        calibrated=list(calibrated),
        summary=summary_table(shown, found, caption=caption),
        estimates=found[0],
        class_tables=[class_table(it, by_class(it, resamples=resamples, seed=seed)) for it in several],
        comparison=comparison,
        comparison_table=comparison_table(comparison) if comparison else None,
        comparison_notes=notes,
        charts=all_charts(series),
        pictures=case_pictures(models[0]),
        resamples=resamples,
        seed=seed,
        notes=_notes(shown),
    )


def _compared(
    pairs: Sequence[tuple[Evaluation, Evaluation]], *, resamples: int, seed: int
) -> tuple[Comparison | None, list[str]]:
    """The comparison, or why there is none."""
    if not pairs:
        return None, []
    try:
        comparison = compare(pairs, resamples=resamples, seed=seed)
    except InputError as error:
        return None, list(error.problems)
    return replace(comparison, notes=[]), [f"{note}." for note in comparison.notes]


def _counts(models: Sequence[Evaluation]) -> str:
    numbers = sorted({len(model.records) for model in models})
    return f"{numbers[0]} cases" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]} cases"


def _notes(models: Sequence[Evaluation]) -> list[str]:
    """What the evaluations noted, and whether the summary's columns are of different cases."""
    notes = [
        f"{model.name}: {note}." if len(models) > 1 else f"{note}."
        for model in models
        for note in model.summary.get("notes", [])
    ]
    if any(set(model.cases) != set(models[0].cases) for model in models):
        notes.append(
            "The models were evaluated on different cases: compare them in the table of differences only."
        )
    return notes
