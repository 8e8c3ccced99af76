"""Training on captions alone, and photos only to validate (CapDec)."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import capsmith  # noqa: E402
from capsmith import registry  # noqa: E402
from capsmith.bundle import Bundle  # noqa: E402
from capsmith.bundle import TextTower as Section  # noqa: E402
from capsmith.errors import BundleError  # noqa: E402
from capsmith.export.text_tower import add_text_tower  # noqa: E402
from capsmith.models.encoder_names import EncoderSpec, open_text_tower  # noqa: E402
from capsmith.models.text_tower import (  # noqa: E402
    TextTower,
    TextTowerConfig,
    train_text_tokenizer,
)
from capsmith.training.config import read_recipe  # noqa: E402
from capsmith.training.run import train  # noqa: E402
from tests import text_towers  # noqa: E402
from tests.bundles import toy_bundle  # noqa: E402
from tests.runs import TRAIN, VALIDATION, caption, names, write_data, write_recipe  # noqa: E402


def test_a_captioner_is_trained_without_its_photos(tmp_path: Path) -> None:
    write_data(tmp_path)
    text_towers.save("clip", tmp_path / "clip")
    path = write_recipe(
        tmp_path,
        encoder={"family": "transformers", "name": str(tmp_path / "clip"), "output": "embedding"},
        features={"source": "texts", "variance": 0.016},
        mapper={"kind": "mlp", "rows": 2, "hidden": 8, "normalise": True},
    )
    for name in names()[:TRAIN]:
        (tmp_path / name).write_bytes(b"no photo")  # it is there, and must never be opened
    lines: list[str] = []
    recipe = read_recipe(path)
    outcome = train(recipe, tmp_path / "run", base=tmp_path, log=lines.append)
    assert outcome.best_step > 0
    assert any(f"encoding {VALIDATION} photos" in line for line in lines)
    captioner = capsmith.load(outcome.bundle)
    held_out = captioner.caption(tmp_path / names()[-1])
    assert held_out.text


def embedded_with_tower(folder: Path) -> Bundle:
    """The embedded captioner with a text tower that has learned nothing."""
    bundle = capsmith.load().bundle
    texts = [caption(number, 0) for number in range(8)]
    tokenizer = train_text_tokenizer(texts, vocab_size=300, max_tokens=9)
    tower = TextTower(
        TextTowerConfig(width=64, heads=4),
        vocab_size=tokenizer.get_vocab_size(),
        output_width=bundle.encoder.width,
    )
    section = Section(languages=("en",), max_tokens=9, scale=20.0)
    sample = torch.tensor([[2, 1]])
    return add_text_tower(
        bundle, tower.eval(), tokenizer, section, folder, sample=sample, provenance={}
    )


def test_captions_go_through_the_text_tower_of_a_bundle(tmp_path: Path) -> None:
    if not registry.names():
        pytest.skip("no captioner is embedded in this checkout")
    write_data(tmp_path)
    shipped = capsmith.load(embedded_with_tower(tmp_path / "tower").folder)
    path = write_recipe(
        tmp_path,
        encoder={"family": "shipped", "name": str(tmp_path / "tower"), "output": "embedding"},
        features={"source": "texts", "variance": 0.05, "offset": True},
        mapper={"kind": "mlp", "rows": 2, "hidden": 8, "normalise": True},
    )
    outcome = train(read_recipe(path), tmp_path / "run", base=tmp_path, log=print)
    photo = tmp_path / names()[-1]
    made = capsmith.load(outcome.bundle)
    assert made.bundle.encoder.rows == 1
    cosine = (made.embed([photo]) @ shipped.embed([photo]).T).item()
    assert cosine == pytest.approx(1, abs=1e-3)
    assert made.caption(photo).text


def test_a_bundle_without_a_text_tower_is_refused(tmp_path: Path) -> None:
    folder = toy_bundle(tmp_path / "toy").folder
    with pytest.raises(BundleError, match="has no text tower"):
        open_text_tower(EncoderSpec(family="shipped", name=str(folder), output="embedding"))
