"""SPICE (Anderson, Fernando, Johnson, Gould, ECCV 2016), by its authors' Java program."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from capsmith.errors import CapsmithError
from capsmith.evaluate import jars
from capsmith.evaluate.java import JavaProgram, find_java
from capsmith.evaluate.pairs import ptb_pairs

# The names that SPICE gives them, in the order of its paper's table.
CATEGORIES: Final = ("Object", "Relation", "Attribute", "Color", "Cardinality", "Size")
# Java before this version has the script engine that SPICE needs, and cannot load a newer one.
_NASHORN_LEFT_JAVA: Final = 15
# Some 2.2 GB of memory.
PHOTOS_AT_ONCE: Final = 200

Progress = Callable[[int, int], None]
"""Is told how many photos are scored, and how many there are."""


@dataclass(frozen=True, slots=True)
class Spice:
    """`value` is the mean of `per_photo`, F-scores of 0 to 1, float64 (photos,).

    categories: for each of CATEGORIES the F-scores of the part of the scene graph that its name
    says, float64 (photos,); NaN where neither caption nor references say anything of it.
    """

    value: float
    per_photo: npt.NDArray[np.float64]
    categories: Mapping[str, npt.NDArray[np.float64]]


def spice(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    memory_mb: int = 3000,
    timeout_s: float = 3600,
    progress: Progress | None = None,
) -> Spice:
    """SPICE of one caption a photo against that photo's references, all as they were written.

    They are tokenised by Penn Treebank rules first; pycocoevalcap does so, and the numbers are its.
    200 photos go to Java at once, and each lot may take `timeout_s`. Raises `DataError` when the
    two differ in length or a photo has no reference, `ConfigError` when Java or a file is missing,
    and `CapsmithError` when Java fails.
    """
    captions, sentences = ptb_pairs(candidates, references)
    _, java_version = find_java()
    needed = [f for f in jars.SPICE if java_version >= _NASHORN_LEFT_JAVA or not _is_engine(f)]
    class_path = os.pathsep.join(map(str, jars.need_files(needed, wanted_by="SPICE")))
    rows = [
        {"image_id": photo, "test": caption, "refs": others}
        for photo, (caption, others) in enumerate(zip(captions, sentences, strict=True))
    ]
    scores: list[Mapping[str, Any]] = []
    for start in range(0, len(rows), PHOTOS_AT_ONCE):
        part = rows[start : start + PHOTOS_AT_ONCE]
        scores += _score(part, class_path, memory_mb=memory_mb, timeout_s=timeout_s)
        if progress:
            progress(len(scores), len(rows))
    per_photo = _column(scores, "All")
    categories = {name: _column(scores, name) for name in CATEGORIES}
    return Spice(value=float(np.mean(per_photo)), per_photo=per_photo, categories=categories)


def _is_engine(file: jars.JarFile) -> bool:
    return file.name.startswith(("nashorn-", "asm-"))


def _score(
    rows: Sequence[Mapping[str, Any]], class_path: str, *, memory_mb: int, timeout_s: float
) -> list[Mapping[str, Any]]:
    """Scores by category of each row, in their order."""
    with tempfile.TemporaryDirectory(prefix="capsmith-spice-") as folder:
        asked, answered = Path(folder, "in.json"), Path(folder, "out.json")
        asked.write_text(json.dumps(rows), "ascii")
        # pycocoevalcap's -jar would leave the class path out, and its -cache (of scene graphs, on
        # disk) fails on Java 17. -subset adds the categories; the score is the same without it.
        arguments = ["-cp", class_path, "edu.anu.spice.SpiceScorer", str(asked)]
        arguments += ["-out", str(answered), "-subset", "-silent"]
        with JavaProgram("SPICE", arguments, memory_mb=memory_mb, timeout_s=timeout_s) as program:
            program.finish()
        results = json.loads(answered.read_text("utf-8")) if answered.exists() else []
    by_photo = {result["image_id"]: result["scores"] for result in results}
    if list(by_photo) != [row["image_id"] for row in rows]:
        raise CapsmithError(f"SPICE: scored {len(by_photo)} of {len(rows)} photos")
    return list(by_photo.values())


def _column(scores: Sequence[Mapping[str, Any]], category: str) -> npt.NDArray[np.float64]:
    """F-scores of a category, NaN where SPICE has none."""
    return np.array([score[category]["f"] for score in scores], np.float64)
