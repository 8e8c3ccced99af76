"""Record METEOR and SPICE of pycocoevalcap itself, for test_java_metrics.py to compare with.

    pip install --no-deps --target FOLDER pycocoevalcap
    PYTHONPATH=FOLDER:. python tests/parity/record_java_metrics.py DATA NASHORN

Java 17; CoreNLP 3.6.0 and its models lie in FOLDER/pycocoevalcap/spice/lib, Nashorn 15.4 and ASM in
NASHORN. Writes java_metrics.json beside itself: numbers, no captions.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

from tests.parity.record_coco_metrics import java_tokens, one_against_four

RECORD = Path(__file__).with_name("java_metrics.json")
CASE = "flickr8k-val"
PHOTOS = 50
# pycocoevalcap starts SPICE by -jar and -cache, as Java 8 could.
OPENED = ("lang", "math", "net", "nio", "text", "util", "util.concurrent")


def captions_and_references(data: Path, photos: int) -> tuple[list[str], list[list[str]]]:
    """The first caption of each of the first photos, and its four others."""
    candidates, references = one_against_four(data, CASE)
    return candidates[:photos], references[:photos]


def main() -> None:
    """Run the command line."""
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.spice.spice import Spice

    data, nashorn = map(Path, sys.argv[1:])
    candidates, references = captions_and_references(data, PHOTOS)
    flat = iter(java_tokens([line for lines in references for line in lines]))
    gts = {i: [next(flat) for _ in lines] for i, lines in enumerate(references)}
    res = {i: [line] for i, line in enumerate(java_tokens(candidates))}
    meteor, meteors = Meteor().compute_score(gts, res)
    opened = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in OPENED]
    opened += ["--add-opens=java.base/sun.nio.ch=ALL-UNNAMED"]
    engine = [f"--module-path={nashorn.resolve()}", "--add-modules=org.openjdk.nashorn"]
    os.environ["JAVA_TOOL_OPTIONS"] = " ".join(opened + engine)
    spice, spices = Spice().compute_score(gts, res)
    names = [name for name in spices[0] if name != "All"]
    categories = {name: [_plain(score[name]["f"]) for score in spices] for name in names}
    record = {
        "meteor": meteor,
        "meteor_per_photo": meteors,
        "spice": float(spice),
        "spice_per_photo": [score["All"]["f"] for score in spices],
        "spice_categories": categories,
    }
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items())
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _plain(score: float) -> float | None:
    return None if math.isnan(score) else score


if __name__ == "__main__":
    main()
