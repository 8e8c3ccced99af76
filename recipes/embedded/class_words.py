"""Write what ImageNet's 1,000 classes are called: class_words.json and classes.txt.

    python recipes/embedded/class_words.py

class_words.json has the words that people use. A class of which one common word is told
(`_RANGES`, `_NAMES`) has that word; for the others stand the last words of its WordNet lemmas. The
lemmas are those of `timm` (pip install --no-deps timm).
"""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

_WORD = re.compile(r"[a-z0-9]+(?:['’-][a-z0-9]+)*")

# ImageNet's class numbers in WordNet order -> the word people use for all of them.
_RANGES = (
    (0, 1, "fish"), (2, 4, "shark"), (7, 7, "rooster"), (8, 8, "chicken"), (9, 24, "bird"),
    (25, 29, "lizard"), (30, 32, "frog"), (33, 37, "turtle"), (38, 48, "lizard"),
    (49, 50, "alligator"), (51, 51, "dinosaur"), (52, 68, "snake"), (72, 77, "spider"),
    (80, 100, "bird"), (101, 101, "elephant"), (104, 104, "kangaroo"), (118, 121, "crab"),
    (122, 123, "lobster"), (127, 146, "bird"), (147, 148, "whale"), (149, 150, "seal"),
    (151, 268, "dog"), (269, 272, "wolf"), (273, 275, "dog"), (277, 280, "fox"),
    (281, 285, "cat"), (286, 287, "cat"), (288, 290, "leopard"), (291, 291, "lion"),
    (292, 292, "tiger"), (294, 297, "bear"), (319, 320, "dragonfly"), (321, 326, "butterfly"),
    (330, 332, "rabbit"), (333, 333, "hamster"), (335, 335, "squirrel"), (339, 339, "horse"),
    (340, 340, "zebra"), (341, 343, "pig"), (345, 347, "cow"), (348, 350, "sheep"),
    (351, 353, "deer"), (354, 354, "camel"), (365, 382, "monkey"),
    (385, 386, "elephant"), (387, 388, "panda"), (389, 397, "fish"),
)  # fmt: skip
# Classes whose own name is not what people write.
_NAMES = {
    403: "boat", 404: "airplane", 895: "airplane", 405: "balloon", 407: "ambulance",
    408: "truck", 417: "balloon", 425: "barn", 429: "baseball", 430: "basketball",
    433: "swimming", 435: "bathtub", 436: "car", 437: "lighthouse", 440: "beer",
    444: "bicycle", 445: "bikini", 449: "boat", 466: "train", 468: "taxi", 472: "canoe",
    479: "car", 484: "boat", 487: "phone", 501: "cloak", 510: "ship", 511: "car",
    515: "hat", 518: "helmet", 522: "ball", 527: "computer", 528: "phone", 532: "table",
    537: "sled", 547: "train", 554: "boat", 555: "truck", 557: "flag", 559: "chair",
    565: "train", 684: "flute",
    560: "football", 569: "truck", 570: "mask", 573: "car", 574: "golf",
    576: "boat", 579: "piano", 602: "gymnast", 603: "horse", 609: "jeep", 612: "cart",
    620: "laptop", 621: "mower", 625: "boat", 627: "limousine", 628: "ship", 654: "van",
    656: "van", 661: "car", 665: "motorcycle", 670: "scooter", 671: "bike", 672: "tent",
    675: "truck", 681: "laptop", 690: "cart", 693: "paddle", 701: "parachute",
    705: "train", 717: "truck", 722: "ball", 724: "ship", 734: "van", 746: "hockey",
    751: "car", 752: "tennis", 768: "rugby", 779: "bus", 780: "boat", 795: "skier",
    802: "snowmobile", 803: "truck", 805: "soccer", 814: "boat", 817: "car", 820: "train",
    829: "train", 831: "couch", 836: "sunglasses", 837: "sunglasses", 842: "shorts",
    847: "tank", 851: "television", 852: "tennis", 854: "theater", 857: "throne",
    864: "truck", 867: "truck", 870: "tricycle", 871: "boat", 874: "bus", 880: "unicycle",
    890: "volleyball", 908: "airplane", 914: "boat", 920: "light", 924: "food",
    931: "bagel", 933: "cheeseburger", 934: "hotdog", 962: "meat", 963: "pizza",
    970: "mountain", 971: "bubbles", 972: "cliff", 973: "reef", 974: "geyser", 975: "lake",
    976: "beach", 977: "sand", 978: "beach", 979: "valley", 980: "volcano",
    981: "baseball", 982: "groom", 983: "diver",
}  # fmt: skip


def class_names() -> list[list[str]]:
    """The WordNet lemmas of ImageNet's 1,000 classes, in class order (tables from `timm`)."""
    spec = find_spec("timm")  # only its tables: importing it would need torchvision
    if spec is None or spec.origin is None:
        raise SystemExit("timm is missing: pip install --no-deps timm")
    info = Path(spec.origin).parent / "data" / "_info"
    synsets = (info / "imagenet_synsets.txt").read_text().split()
    rows = (info / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    lemmas = dict(row.split("\t", 1) for row in rows)
    return [lemmas[synset].lower().split(", ") for synset in synsets]


def entry(number: int, lemmas: list[str]) -> str | list[str]:
    """What the file says of a class."""
    ranges = (name for first, last, name in reversed(_RANGES) if first <= number <= last)
    word = _NAMES.get(number) or next(ranges, None)
    if word is not None:
        return word
    return list(dict.fromkeys(_WORD.findall(lemma)[-1] for lemma in lemmas))


def main() -> None:
    entries = [json.dumps(entry(number, lemmas)) for number, lemmas in enumerate(class_names())]
    text = "[\n" + ",\n".join(entries) + "\n]\n"
    Path(__file__).with_name("class_words.json").write_text(text, encoding="utf-8")
    names = "".join(f"{lemmas[0]}\n" for lemmas in class_names())
    Path(__file__).with_name("classes.txt").write_text(names, encoding="utf-8")


if __name__ == "__main__":
    main()
