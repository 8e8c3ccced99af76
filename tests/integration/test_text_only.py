"""Training on captions alone, and photos only to validate (CapDec)."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import capsmith  # noqa: E402
from capsmith.training.config import read_recipe  # noqa: E402
from capsmith.training.run import train  # noqa: E402
from tests import text_towers  # noqa: E402
from tests.runs import TRAIN, VALIDATION, names, write_data, write_recipe  # noqa: E402


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
