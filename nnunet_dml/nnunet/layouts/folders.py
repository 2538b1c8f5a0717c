"""Layout `folders`: a folder of images and one of masks for each rater."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from nnunet_dml.nnunet.layouts.cases import Found, add_case, group, orphans, readable, visible
from nnunet_dml.nnunet.layouts.signs import misread


def find(src: Path) -> Found:
    """`images/<case>.*` (or `<case>_0000.*`, …) and `raters/<rater>/<case>.*`."""
    if not (src / "images").is_dir() or not (src / "raters").is_dir():
        misread(src, "the folders images/ and raters/<rater>/", "folders")
    found = Found("folders")
    images = readable(found, visible(src / "images"))
    masks: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for folder in visible(src / "raters"):
        if not folder.is_dir():
            found.ignored.append(folder)
            continue
        for stem, path in readable(found, visible(folder)):
            masks[stem].append((folder.name, path))
    for name, paths in group(found, images, set(masks)).items():
        add_case(found, name, paths, masks.pop(name, []), src / "raters", f"<rater>/{name}.*")
    orphans(found, masks, f"an image images/{{case}}.* in {src}")
    return found
