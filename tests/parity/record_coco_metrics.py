"""Record what pycocoevalcap says about real captions, for test_coco_metrics.py to compare with.

    pip install --no-deps pycocoevalcap     # 104 MB, hence not a development dependency
    python tests/parity/record_coco_metrics.py DATA

Needs Java for the tokenizer. Writes coco_metrics.json beside itself: numbers and hashes, no
captions.
"""

from __future__ import annotations

import csv
import hashlib
import json
import lzma
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

RECORD = Path(__file__).with_name("coco_metrics.json")
CASES = {"flickr8k-val": ("Flickr_8k.devImages.txt", 1000),
         "flickr8k-train": ("Flickr_8k.trainImages.txt", 5000)}  # fmt: skip
CAPTION_FILES = (
    "flickr8k/captions.txt",
    "coco/train_captions.json",
    "coco/captions.json",
    "coco/one_caption.csv",
    "pascal/captions.csv",
    "text/coco-val2017.en.txt.xz",
    "text/flickr30k-multi30k-task2.en.txt.xz",
    "text/multi30k-task1.en.txt.xz",
)


def captions_in(file: Path) -> list[str]:
    """Every caption of a file, in its order."""
    if file.suffix == ".xz":
        with lzma.open(file, "rt", encoding="utf-8", newline="\n") as stream:
            return [line.removesuffix("\n") for line in stream]
    if file.suffix == ".json":
        rows = json.loads(file.read_text(encoding="utf-8"))["annotations"]
    else:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    return [row["caption"].replace("\n", " ") for row in rows]


def one_against_four(data: Path, case: str) -> tuple[list[str], list[list[str]]]:
    """The first caption of each photo as candidate, its four others as references."""
    split, photos = CASES[case]
    captions: dict[str, list[str]] = {}
    with (data / "flickr8k" / "captions.txt").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            captions.setdefault(row["image"], []).append(row["caption"])
    names = (data / "flickr8k" / split).read_text(encoding="utf-8").split()[:photos]
    return [captions[name][0] for name in names], [captions[name][1:] for name in names]


def digest(lines: list[str]) -> str:
    """One hash of tokenised captions."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def java_tokens(captions: list[str]) -> list[str]:
    """The tokens that pycocoevalcap's Java program and its filter leave of each caption."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    folder = Path(ptbtokenizer.__file__).parent
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", suffix=".txt") as file:
        file.write("\n".join(captions))
        file.flush()
        command = ["java", "-cp", ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR,
                   "edu.stanford.nlp.process.PTBTokenizer",
                   "-preserveLines", "-lowerCase", file.name]  # fmt: skip
        run = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True)
    kept = [
        " ".join(w for w in line.rstrip().split(" ") if w not in ptbtokenizer.PUNCTUATIONS)
        for line in run.stdout.decode().split("\n")
    ]
    return kept[: len(captions)]


def record_case(data: Path, case: str) -> dict[str, object]:
    """Scores of one set, and those of every 25th photo."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    candidates, references = one_against_four(data, case)
    flat = iter(java_tokens([line for lines in references for line in lines]))
    gts = {i: [next(flat) for _ in lines] for i, lines in enumerate(references)}
    res = {i: [line] for i, line in enumerate(java_tokens(candidates))}
    cider, ciders = Cider().compute_score(gts, res)
    rouge, rouges = Rouge().compute_score(gts, res)
    bleu, _ = Bleu(4).compute_score(gts, res, verbose=0)
    return {
        "cider": float(cider),
        "rouge_l": float(rouge),
        "bleu": [float(score) for score in bleu],
        "cider_every_25th": [round(float(score), 9) for score in ciders[::25]],
        "rouge_l_every_25th": [round(float(score), 9) for score in rouges[::25]],
    }


def main() -> None:
    """Run the command line."""
    if find_spec("pycocoevalcap") is None:
        sys.exit("pycocoevalcap is missing: pip install --no-deps pycocoevalcap")
    data = Path(sys.argv[1])
    files = {}
    for name in CAPTION_FILES:
        captions = captions_in(data / name)
        files[name] = {"captions": len(captions), "sha256": digest(java_tokens(captions))}
    scores = {case: record_case(data, case) for case in CASES}
    RECORD.write_text(json.dumps({"tokens": files, "scores": scores}, indent=1) + "\n")


if __name__ == "__main__":
    main()
