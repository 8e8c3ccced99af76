"""Penn Treebank tokens by the community's own program, to check `capsmith.evaluate.tokenize`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from capsmith.evaluate import jars
from capsmith.evaluate.java import JavaProgram
from capsmith.evaluate.tokenize import PUNCTUATION


def java_ptb_lines(
    captions: Sequence[str], *, memory_mb: int = 1000, timeout_s: float = 3600
) -> list[str]:
    """Each caption's tokens, joined by spaces, as CoreNLP 3.4.1 and pycocoevalcap's filter do it.

    `tokenize.ptb_lines` gives the same without Java. Raises `ConfigError` when Java or the file is
    missing, and `CapsmithError` when Java fails.
    """
    (jar,) = jars.need_files(jars.TOKENIZER, wanted_by="Java's tokenizer")
    with tempfile.TemporaryDirectory(prefix="capsmith-ptb-") as folder:
        text = Path(folder, "captions.txt")
        lines = "\n".join(" ".join(caption.splitlines()) for caption in captions)
        text.write_bytes(lines.encode("utf-8", "replace"))
        arguments = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
        arguments += ["-preserveLines", "-lowerCase", str(text)]
        with JavaProgram(
            "Java's tokenizer", arguments, memory_mb=memory_mb, timeout_s=timeout_s
        ) as program:
            answers = program.finish().split("\n")
    kept = [" ".join(w for w in line.split(" ") if w not in PUNCTUATION) for line in answers]
    return [line.strip(" ") for line in kept[: len(captions)]]
