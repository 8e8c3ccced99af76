"""`capsmith embed --encoder` and `capsmith data noise`, with a tiny CLIP from a folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("transformers")

import numpy as np
import torch
from torch.nn import functional as F

from capsmith.data.store import open_store, read_description
from capsmith.models.text_towers import load_text_tower
from tests import text_towers
from tests.datasets import write_photos
from tests.integration.command import capsmith

CAPTIONS = {
    "a.jpg": ["a cat sleeps on a mat", "a cat on the beach"],
    "b.jpg": ["two dogs run on the beach", "two dogs in the rain", "a small dog in the rain"],
    "c.jpg": ["a small dog"],
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    text_towers.save("clip", folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos", CAPTIONS)
    rows = [f"{name},{text}\n" for name, texts in CAPTIONS.items() for text in texts]
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(rows))
    return tmp_path / "captions.csv"


def test_photos_are_encoded_by_a_named_encoder(clip: Path, data: Path, tmp_path: Path) -> None:
    encoder = f"transformers:{clip}"
    done = capsmith("embed", data, tmp_path / "store", "--encoder", encoder)
    assert (done.status, done.complaints) == (0, [])
    assert "3 photos, 1 x 12 float32 each, by transformers:tiny-clip:embedding" in done.lines[0]
    facts = read_description(tmp_path / "store").encoder
    assert re.fullmatch(r"transformers:tiny-clip:embedding@[0-9a-f]{16}", facts.name)
    store = open_store(tmp_path / "store", facts)
    assert np.isfinite(store.features(["a.jpg", "b.jpg"])).all()
    options = ("--encoder", encoder, "--output", "patches")
    done = capsmith("embed", data, tmp_path / "store", *options)
    assert done.status == 1
    assert "here transformers:tiny-clip:patches" in done.complaints[0]
    assert "17 x 32" in done.complaints[0]


def test_the_noise_is_that_between_captions_of_a_photo(clip: Path, data: Path) -> None:
    done = capsmith("data", "noise", data, "--encoder", f"transformers:{clip}")
    assert (done.status, done.complaints) == (0, [])
    pattern = r"noise variance (\S+) \(of 5 captions, by transformers:tiny-clip\)"
    found = re.fullmatch(pattern, done.lines[0])
    assert found is not None
    tower = load_text_tower(clip)
    largest = []
    for texts in CAPTIONS.values():
        unit = F.normalize(torch.from_numpy(tower.embed(texts)), dim=1)
        pairs = [(i, j) for i in range(len(unit)) for j in range(i)]
        largest += [(unit[i] - unit[j]).abs().max().item() for i, j in pairs]
    assert float(found[1]) == pytest.approx(np.mean(largest), rel=1e-3)
    done = capsmith("data", "noise", data, "--encoder", f"transformers:{clip}", "--sample", "1")
    assert "of 2 captions" in done.lines[0]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--encoder", "transformers:nobody/none"), 3, "hf download nobody/none"),
        (("--encoder", "clip:x"), 2, "which must be one of 'shipped'"),
        (("--encoder", "shipped:", "--model", "x"), 2, "leave one out"),
        (("--weights", "openai"), 2, "belong to --encoder"),
    ],
)
def test_wrong_encoders_are_one_line(
    options: tuple[str, ...], status: int, message: str, data: Path, tmp_path: Path
) -> None:
    done = capsmith("embed", data, tmp_path / "store", *options, env={"HF_HUB_OFFLINE": "1"})
    assert (done.status, len(done.complaints)) == (status, 1), done.complaints
    assert message in done.complaints[0]
    assert not (tmp_path / "store").exists()


def test_data_without_pairs_has_no_noise(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,A photo .\n")
    write_photos(tmp_path, ["a.jpg"])
    done = capsmith("data", "noise", tmp_path / "captions.csv", "--encoder", f"transformers:{clip}")
    assert (done.status, len(done.complaints)) == (1, 1)
    assert "no photo has two captions" in done.complaints[0]
