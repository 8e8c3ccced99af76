"""The word vocabulary of the embedded captioner, and the words for the encoder's classes."""

from __future__ import annotations

import lzma
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from capsmith.runtime.rules import Rules

PAD, START, STOP, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<start>", "<stop>", "<unk>")
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


def split(caption: str) -> list[str]:
    """Lower-case words of a caption, punctuation left out."""
    return _WORD.findall(caption.lower().replace("’", "'"))


def rules(longest: int) -> Rules:
    """How captions of this vocabulary are decoded."""
    return Rules(
        prompt=(START,),
        stop=frozenset({STOP}),
        never=frozenset({PAD, START, UNKNOWN}),
        forbidden=(),
        min_tokens=0,
        max_tokens=longest,
        no_repeat_ngram=3,
        repetition_penalty=1.0,
    )


def read_lines(path: Path) -> list[str]:
    """The lines of an xz-compressed text file."""
    with lzma.open(path, "rt", encoding="utf-8") as stream:
        return [line.strip() for line in stream if line.strip()]


def vocabulary(
    captions: Iterable[str], text: Iterable[str], least: int, least_text: int
) -> list[str]:
    """Special tokens, then the words seen `least` times with photos or `least_text` times."""
    seen = Counter(word for caption in captions for word in split(caption))
    anywhere = seen + Counter(word for caption in text for word in split(caption))
    kept = [w for w, n in anywhere.items() if seen[w] >= least or n >= least_text]
    return [*SPECIALS, *sorted(kept, key=lambda word: (-anywhere[word], word))]


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


def class_words(vocabulary: Sequence[str], least_rank: int = 4000) -> tuple[list[str], np.ndarray]:
    """The words that name the encoder's classes, and float32 (1000, words) that says which.

    A class without a word of its own among the vocabulary's `least_rank` most frequent has none.
    """
    common = set(vocabulary[len(SPECIALS) : least_rank])
    rank = {word: index for index, word in enumerate(vocabulary)}
    chosen: list[str | None] = []
    for number, lemmas in enumerate(class_names()):
        word = _NAMES.get(number) or next(
            (name for first, last, name in reversed(_RANGES) if first <= number <= last), None
        )
        if word is None:
            options = [split(lemma)[-1] for lemma in lemmas if split(lemma)]
            options = [option for option in options if option in common]
            word = min(options, key=rank.__getitem__, default=None)
        chosen.append(word if word in rank else None)
    words = sorted({word for word in chosen if word})
    table = np.zeros((len(chosen), len(words)), np.float32)
    for number, word in enumerate(chosen):
        if word:
            table[number, words.index(word)] = 1.0
    return words, table
