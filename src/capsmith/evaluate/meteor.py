"""METEOR 1.5 (Denkowski and Lavie, WMT 2014), by its authors' Java program."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from capsmith.errors import CapsmithError
from capsmith.evaluate import jars
from capsmith.evaluate.java import JavaProgram
from capsmith.evaluate.pairs import ptb_pairs

_SEPARATOR: Final = "|||"
_STATISTICS: Final = re.compile(r"[0-9.E+-]+( [0-9.E+-]+){22}")


@dataclass(frozen=True, slots=True)
class Meteor:
    """`value` is the corpus's score, which METEOR makes of all photos' counts; it is not the mean.

    per_photo: float64 (photos,). Both are 0 to 1.
    """

    value: float
    per_photo: npt.NDArray[np.float64]


def meteor(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    memory_mb: int = 2000,
    timeout_s: float = 3600,
) -> Meteor:
    """METEOR of one caption a photo against that photo's references, all as they were written.

    They are tokenised by Penn Treebank rules first, and METEOR then normalises them for English
    (`-l en -norm`): pycocoevalcap does both, and the numbers are its. Takes some ten seconds to
    start. Raises `DataError` when the two differ in length or a photo has no reference,
    `ConfigError` when Java or a file is missing, and `CapsmithError` when Java fails.
    """
    captions, sentences = ptb_pairs(candidates, references)
    jar, _ = jars.need_files(jars.METEOR, wanted_by="METEOR")
    arguments = ["-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    with JavaProgram("METEOR", arguments, memory_mb=memory_mb, timeout_s=timeout_s) as program:
        statistics = [
            _statistics(program, caption, others)
            for caption, others in zip(captions, sentences, strict=True)
        ]
        program.write(f" {_SEPARATOR} ".join(["EVAL", *statistics]))
        scores = [float(program.read()) for _ in statistics]
        value = float(program.read())
        program.finish()
    return Meteor(value=value, per_photo=np.array(scores, np.float64))


def _statistics(program: JavaProgram, caption: str, references: Sequence[str]) -> str:
    """METEOR's 23 counts of one photo."""
    # A token may hold the separator: "<b |||>" is one, a tag.
    fields = ["SCORE", *(line.replace(_SEPARATOR, "") for line in (*references, caption))]
    program.write(f" {_SEPARATOR} ".join(fields))
    answer = program.read()
    if not _STATISTICS.fullmatch(answer):
        raise CapsmithError(f"METEOR: answered {answer[:80]!r} where its counts were expected")
    return answer
