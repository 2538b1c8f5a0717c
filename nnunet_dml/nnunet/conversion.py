"""What a conversion found and wrote: a summary for people, and `dataset.json`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_dml._checks import some
from nnunet_dml._folders import FORMAT
from nnunet_dml.nnunet.layouts.cases import Case, Found, record_of
from nnunet_dml.nnunet.rater_cases import Facts, Reading


@dataclass
class Conversion:
    """What was found and, unless it was a dry run, written."""

    folder: Path
    found: Found
    reading: Reading
    cases: list[Case]
    facts: list[Facts]
    ending: str
    channel_names: list[str]
    labels: dict[str, int]  # name → value in the raters' files, in the order of the labels 1, 2, …
    notes: list[str]
    left_out: list[str]  # one line for each image or mask that was bad and was left out on request
    tied_voxels: list[int] | None = field(default=None)

    @property
    def raters(self) -> list[str]:
        """The names of all raters; none where each case has one annotation."""
        if self.found.single:
            return []
        return sorted({rater for case in self.cases for rater in case.raters})

    def summary(self) -> list[str]:
        """Lines for people."""
        grids = [facts.grid for facts in self.facts if facts.grid]
        labels = [
            f"{name} {i} (value {value})" for i, (name, value) in enumerate(self.labels.items(), start=1)
        ]
        lines = [f"{self.folder.name}: {len(self.cases)} cases, {len(grids[0].size)}D, {self.ending}"]
        if self.found.single:
            lines.append("one annotation per case: an ordinary data set, without ratersTr")
        else:
            per_case = sorted(Counter(len(case.raters) for case in self.cases).items())
            lines.append(f"raters: {len(self.raters)} ({some(self.raters, 12)})")
            lines.append("raters per case: " + ", ".join(f"{n} ({count} cases)" for n, count in per_case))
        names = ", ".join(self.channel_names)
        lines.append(f"channels: {names} (nnU-Net normalises by these names: --channel-names)")
        if not any(case.images for case in self.cases):
            lines.append("no images: for `nnunet-dml raters`, not for training")
        if self.reading.window:
            lines.append("intensities clipped to {} … {}".format(*self.reading.window))
        lines.append(f"labels: background 0, {', '.join(labels)}")
        return [*lines, *self.notes, *self.found.notes, *self._oddities(), *self._ties()]

    def _oddities(self) -> list[str]:
        """Cases and files that are not as most are."""
        lines, raters = [], set(self.raters)
        empty = [c.name for c, f in zip(self.cases, self.facts, strict=True) if _is_empty(f)]
        single = [] if self.found.single else [case.name for case in self.cases if len(case.raters) == 1]
        fewer = [
            f"{case.name}: {', '.join(sorted(raters - set(case.raters)))}"
            for case in self.cases
            if 1 < len(case.raters) < len(raters)
        ]
        by = "left empty by all raters" if not self.found.single else "without any label"
        for what, found in (("with a single rater", single), ("that lack a rater", fewer), (by, empty)):
            if found:
                lines.append(f"cases {what}: {len(found)} ({'; '.join(found)})")
        cubes = [
            case.name
            for case, facts in zip(self.cases, self.facts, strict=True)
            if facts.grid and facts.grid.spacing == (1.0, 1.0, 1.0)
        ]
        if 0 < len(cubes) < len(self.cases):
            where = f"{len(cubes)} ({some(cubes)})"
            lines.append(f"cases of 1 × 1 × 1 mm, perhaps for want of a true header: {where}")
        repaired = [f"{path.name}: {what}" for facts in self.facts for path, what in facts.repaired]
        if repaired:
            lines.append(f"headers of masks replaced by the image's: {len(repaired)} ({some(repaired)})")
        lines += [f"left out: {line}" for line in self.left_out]
        if ignored := self.found.ignored:
            lines.append(f"ignored: {len(ignored)} ({some([path.name for path in ignored], 5)})")
        return lines

    def _ties(self) -> list[str]:
        if self.tied_voxels is None or self.found.single:
            return []
        ties = {case.name: n for case, n in zip(self.cases, self.tied_voxels, strict=True) if n}
        where = f" ({some([f'{name} {n}' for name, n in ties.items()], 5)})" if ties else ""
        return [f"ties, given to the lowest label: {sum(ties.values())} voxels in {len(ties)} cases{where}"]

    def dataset_json(self, src: Path) -> dict[str, Any]:
        """nnU-Net's keys, and in the block `nnunet_dml` where everything comes from; no path outside `src`."""
        assert self.tied_voxels is not None
        cases = {}
        for case, facts, tied in zip(self.cases, self.facts, self.tied_voxels, strict=True):
            masks = {rater: record_of(source, src) for rater, source in sorted(case.raters.items())}
            source: dict[str, Any] = {"images": [record_of(image, src) for image in case.images]}
            source |= {"labels": next(iter(masks.values()))} if self.found.single else {"raters": masks}
            entry: dict[str, Any] = {
                "raters": [] if self.found.single else sorted(case.raters),
                "source": source,
            }
            entry |= {} if self.found.single else {"tied_voxels": tied}
            if facts.repaired:
                entry["repaired_headers"] = {
                    path.relative_to(src).as_posix(): what for path, what in facts.repaired
                }
            cases[case.name] = entry
        block: dict[str, Any] = {
            "format": FORMAT,
            "layout": self.found.layout,
            "raters": self.raters,
            "ties": "lowest label",
            "source_values": dict(self.labels),
        }
        if self.reading.window:
            block["window"] = list(self.reading.window)
        if self.left_out:
            block["left_out"] = [line.replace(f"{src}/", "") for line in self.left_out]
        return {
            "channel_names": {str(i): name for i, name in enumerate(self.channel_names)},
            "labels": {"background": 0} | {name: i for i, name in enumerate(self.labels, start=1)},
            "numTraining": len(self.cases),
            "file_ending": self.ending,
            "nnunet_dml": block | {"cases": cases},
        }


def _is_empty(facts: Facts) -> bool:
    return all(set(values) <= {0} for values in facts.values.values())
