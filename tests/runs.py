"""A tiny data set, a tiny recipe, and `capsmith train` on them: a run of a few steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.datasets import write_photos

TRAIN, VALIDATION = 12, 4
CAPTIONS_A_PHOTO = 2
_SUBJECTS = ("a red cat", "two small dogs", "a tall man", "a woman in a blue hat")
_DEEDS = ("sleeps on a mat", "runs along the beach", "rides a bicycle")

RECIPE: Mapping[str, Any] = {
    "name": "tiny",
    "data": {
        "sources": [
            {"path": "captions.csv", "splits": {"train": "train.txt", "val": "val.txt"}},
        ],
    },
    "encoder": {"family": "shipped"},
    "mapper": {"kind": "mlp", "rows": 2, "hidden": 8},
    "language_model": {
        "kind": "gpt2", "width": 16, "layers": 1, "heads": 2, "positions": 24, "dropout": 0.1,
    },
    "tokenizer": {"kind": "words", "least_seen": 1},
    "text": {
        "lowercase_prompt": True, "capitalise": True, "final_period": True, "join": " ",
    },
    "training": {
        "policy": "mapper+lm", "epochs": 2, "batch": 8, "learning_rate": 1e-2, "warmup": 1,
    },
    "validation": {"samples": 1},
    "decoding": {"strategy": {"kind": "greedy"}, "limits": {"max_tokens": 8}},
}  # fmt: skip
"""Trains six steps on the data of `write_data`; 3 steps an epoch."""


def names() -> list[str]:
    """The photos, those to train on first."""
    return [f"{number:02}.jpg" for number in range(TRAIN + VALIDATION)]


def caption(number: int, variant: int) -> str:
    """A caption of photo `number`."""
    subject, deed = _SUBJECTS[number % 4], _DEEDS[number % 3]
    return f"{subject} {deed}" if variant == 0 else f"{subject} that {deed} again"


def write_data(folder: Path) -> None:
    """Photos, captions.csv and split lists."""
    write_photos(folder, names())
    rows = [
        f"{name},{caption(number, variant)}\n"
        for number, name in enumerate(names())
        for variant in range(CAPTIONS_A_PHOTO)
    ]
    (folder / "captions.csv").write_text("image,caption\n" + "".join(rows))
    (folder / "train.txt").write_text("".join(f"{name}\n" for name in names()[:TRAIN]))
    (folder / "val.txt").write_text("".join(f"{name}\n" for name in names()[TRAIN:]))


def changed(**sections: Any) -> dict[str, Any]:
    """`RECIPE` with fields of sections changed; text and lists replace what is there."""
    recipe: dict[str, Any] = json.loads(json.dumps(RECIPE))
    for name, value in sections.items():
        known = recipe.get(name)
        is_section = isinstance(known, dict) and isinstance(value, dict) and "kind" not in value
        recipe[name] = {**known, **value} if is_section else value
    return recipe


def write_recipe(folder: Path, name: str = "tiny.yaml", **sections: Any) -> Path:
    """`changed`, as a file beside the data."""
    path = folder / name
    path.write_text(yaml.safe_dump(changed(**sections)))
    return path


def metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
