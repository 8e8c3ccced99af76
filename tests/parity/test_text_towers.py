"""Text towers of `transformers`: the library's own vectors, one text at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from capsmith.errors import ConfigError
from capsmith.models.encoder_names import EncoderSpec, open_text_tower
from capsmith.models.text_towers import load_text_tower
from tests import text_towers

LONG = "a small dog in the rain " * 9


@pytest.fixture(scope="module", params=text_towers.FAMILIES)
def saved(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("towers") / request.param
    return text_towers.save(request.param, folder), folder


def expected(model: Any, tokenizer: Any, text: str) -> np.ndarray:
    padding = "max_length" if model.config.model_type == "siglip" else False
    options = {"truncation": True, "max_length": text_towers.CONTEXT, "return_tensors": "pt"}
    tokens = tokenizer([text], padding=padding, **options)
    with torch.inference_mode():
        return model.get_text_features(**tokens).pooler_output.numpy()[0]


def test_vectors_are_those_of_the_library_in_any_batch(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    tower = load_text_tower(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [*text_towers.WORDS, LONG] * 30
    vectors = tower.embed(texts)
    assert vectors.dtype == np.float32
    for text, vector in list(zip(texts, vectors, strict=True))[-5:]:
        np.testing.assert_allclose(vector, expected(model, tokenizer, text), atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert tower.name == f"transformers:{folder.name}"


def test_long_texts_are_cut(saved: tuple[Any, Path]) -> None:
    tower = load_text_tower(saved[1])
    first, second = tower.embed([LONG, LONG + "two cats"])
    np.testing.assert_array_equal(first, second)


def test_encoders_without_one_say_so(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.Dinov2Config(**sizes).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="a dinov2 has no text tower"):
        load_text_tower(tmp_path)
    for spec, is_random in (
        (EncoderSpec(family="torchvision", name="vgg16"), False),
        (EncoderSpec(family="transformers", name="openai/clip-vit-base-patch32"), True),
    ):
        with pytest.raises(ConfigError, match="text tower; use a CLIP of open-clip or"):
            open_text_tower(spec, random=is_random)
