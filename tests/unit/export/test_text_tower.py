"""The text tower's graph: that of its module, small, and row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from capsmith.errors import BundleError
from capsmith.export.graphs import export_text_tower
from capsmith.export.parity import compare_outputs
from capsmith.export.text_tower import add_text_tower
from capsmith.models.text_tower import TextTower, TextTowerConfig, train_text_tokenizer
from capsmith.runtime.session import open_session
from tests.bundles import toy_bundle

VOCABULARY, WIDTH = 600, 40


@pytest.fixture(scope="module")
def tower() -> TextTower:
    torch.manual_seed(0)
    config = TextTowerConfig(width=64, heads=4)
    return TextTower(config, vocab_size=VOCABULARY, output_width=WIDTH).eval()


@pytest.fixture(scope="module")
def graph(tower: TextTower, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "text.onnx"
    export_text_tower(tower, path, precision="int8-stored")
    return path


@pytest.mark.parametrize("length", [1, 2, 3, 64])
def test_the_graph_does_what_the_module_does(tower: TextTower, graph: Path, length: int) -> None:
    tokens = torch.randint(2, VOCABULARY, (6, length))
    assert compare_outputs(tower, graph, tokens, tolerance=0.2) > 0


def test_a_weight_takes_a_byte(tower: TextTower, graph: Path) -> None:
    weights = sum(parameter.numel() for parameter in tower.parameters())
    assert graph.stat().st_size < 1.1 * weights + 20_000
    wide = graph.with_name("wide.onnx")
    export_text_tower(tower, wide)
    assert wide.stat().st_size > 3.9 * weights
    assert compare_outputs(tower, wide, torch.tensor([[2, 3, 1]]), tolerance=1e-4) < 1e-4


def test_rows_and_padding_do_not_touch_each_other(graph: Path) -> None:
    session = open_session(graph, threads=1, device="cpu")

    def run(tokens: np.ndarray) -> np.ndarray:
        made: np.ndarray = session.run(["embedding"], {"tokens": tokens})[0]
        return made

    tokens = np.random.default_rng(0).integers(2, VOCABULARY, (5, 7))
    together = run(tokens)
    for row, expected in zip(tokens, together, strict=True):
        assert run(row[None])[0] == pytest.approx(expected, abs=1e-5)
        assert run(np.pad(row, (0, 9))[None])[0] == pytest.approx(expected, abs=1e-5)


def test_a_tower_for_another_encoder_is_refused(tower: TextTower, tmp_path: Path) -> None:
    from capsmith.bundle import TextTower as Section

    bundle = toy_bundle(tmp_path / "toy")
    tokenizer = train_text_tokenizer(["a"], vocab_size=300, max_tokens=9)
    with pytest.raises(BundleError, match="in 8 numbers, and the tower texts in 40"):
        add_text_tower(
            bundle,
            tower,
            tokenizer,
            Section(languages=("en",), max_tokens=9, scale=20.0),
            tmp_path / "made",
            sample=torch.tensor([[2, 1]]),
            provenance={},
        )
    assert not (tmp_path / "made").exists()
