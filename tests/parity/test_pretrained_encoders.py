"""Encoders of `transformers`: the library's own features and pixels, from a folder on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
import transformers
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import (
    ChineseCLIPImageProcessorPil,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from capsmith.errors import CheckpointError, ConfigError
from capsmith.export.graphs import export_encoder
from capsmith.export.parity import compare_outputs
from capsmith.models.encoder_names import EncoderSpec, open_encoder
from capsmith.models.graph_weights import load_weights
from capsmith.models.pretrained_encoders import load_encoder, preprocessing_of, random_encoder
from capsmith.runtime.preprocess import to_pixels

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
TEXT |= {"vocab_size": 20}
SIDE = {"height": 32, "width": 32}
CELLS = 16


def published(family: str) -> tuple[Any, Any]:
    """A random model of the library and its own image processor."""
    torch.manual_seed(0)
    short = {"size": {"shortest_edge": 32}, "crop_size": SIDE}
    if family == "clip":
        clip = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)
        return transformers.CLIPModel(clip), CLIPImageProcessorPil(**short)
    if family == "chinese_clip":
        chinese = transformers.ChineseCLIPConfig(
            text_config=TEXT, vision_config=VISION, projection_dim=12
        )
        processor = ChineseCLIPImageProcessorPil(size=SIDE, do_center_crop=False)
        return transformers.ChineseCLIPModel(chinese), processor
    if family == "siglip":
        siglip = transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)
        return transformers.SiglipModel(siglip), SiglipImageProcessorPil(size=SIDE)
    sizes = {name: size for name, size in VISION.items() if name != "intermediate_size"}
    imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    return (
        transformers.Dinov2Model(transformers.Dinov2Config(**sizes)),
        BitImageProcessorPil(**short, **imagenet),
    )


FAMILIES = ("clip", "chinese_clip", "siglip", "dinov2")


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    model, processor = published(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor, folder


def photo() -> Image.Image:
    return Image.fromarray(skimage.data.chelsea())


def test_pixels_and_features_are_those_of_the_library(saved: tuple[Any, Any, Path]) -> None:
    model, processor, folder = saved
    family = model.config.model_type
    expected = processor(images=photo(), return_tensors="pt")["pixel_values"]
    encoder = load_encoder(folder, output="pooled")
    pixels = torch.from_numpy(to_pixels(photo(), encoder.preprocessing))[None]
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        tower = getattr(model, "vision_model", model)(pixel_values=pixels)
        pooled = encoder(pixels)
        grid = load_encoder(folder, output="patches")(pixels)
    torch.testing.assert_close(pooled, tower.pooler_output[:, None])
    assert grid.shape == (1, 1 + CELLS, 32)
    torch.testing.assert_close(grid[:, :1], pooled)
    torch.testing.assert_close(grid[:, 1:], tower.last_hidden_state[:, -CELLS:])
    if family == "dinov2":
        with pytest.raises(ConfigError, match="no embedding shared with text"):
            load_encoder(folder, output="embedding")
        return
    with torch.inference_mode():
        embedding = load_encoder(folder, output="embedding")(pixels)
        shared = model.get_image_features(pixel_values=pixels).pooler_output
    torch.testing.assert_close(embedding[:, 0], shared)


def test_an_encoder_is_frozen_and_can_be_finetuned(saved: tuple[Any, Any, Path]) -> None:
    encoder = load_encoder(saved[2], output="patches")
    assert not encoder.training
    assert not encoder(torch.zeros(1, 3, 32, 32)).requires_grad
    encoder.requires_grad_(True)
    encoder(torch.randn(1, 3, 32, 32)).square().sum().backward()
    first = next(parameter for parameter in encoder.parameters() if parameter.dim() == 4)
    assert first.grad.abs().sum() > 0


def test_an_encoder_exports(saved: tuple[Any, Any, Path], tmp_path: Path) -> None:
    encoder = load_encoder(saved[2], output="patches")
    export_encoder(encoder, tmp_path / "encoder.onnx", height=32, width=32)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    compare_outputs(encoder, tmp_path / "encoder.onnx", pixels, tolerance=1e-4)
    again = random_encoder(
        saved[0].config, output="patches", name="again", preprocessing=encoder.preprocessing
    )
    load_weights(again, tmp_path / "encoder.onnx")
    torch.testing.assert_close(again(pixels), encoder(pixels))


@pytest.mark.parametrize(
    ("name", "output", "shape", "parameters"),
    [
        ("openai/clip-vit-base-patch32", "default", (1, 512), 87_849_216),
        ("openai/clip-vit-base-patch32", "pooled", (1, 768), 87_456_000),
        ("google/siglip-base-patch16-224", "patches", (197, 768), 92_884_224),
        ("OFA-Sys/chinese-clip-vit-base-patch16", "default", (1, 512), 86_192_640),
        # Without the mask token of its pretraining.
        ("facebook/dinov2-small", "default", (1, 384), 22_056_576 - 384),
    ],
)
@pytest.mark.slow
def test_published_names_have_random_weights_without_a_hub(
    name: str, output: Any, shape: tuple[int, int], parameters: int
) -> None:
    encoder = open_encoder(
        EncoderSpec(family="transformers", name=name, output=output), random=True
    )
    assert (encoder.rows, encoder.width) == shape
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters


def test_random_weights_of_a_config_need_no_folder() -> None:
    model, processor = published("clip")
    preprocessing = preprocessing_of(processor.to_dict())
    encoder = random_encoder(
        model.config, output="embedding", name="tiny", preprocessing=preprocessing
    )
    assert encoder(torch.zeros(2, 3, 32, 32)).shape == (2, 1, 12)


def test_a_margin_is_kept_and_what_a_bundle_cannot_describe_is_refused() -> None:
    settings = published("dinov2")[1].to_dict()
    margin = preprocessing_of(settings | {"size": {"shortest_edge": 40}})
    assert margin == preprocessing_of(settings)
    np.testing.assert_allclose(margin.std, [0.229, 0.224, 0.225])
    for change, message in (
        ({"resample": 0}, "filter 0 cannot be had"),
        ({"do_normalize": False}, "not normalised"),
        ({"do_center_crop": False}, "free width"),
    ):
        with pytest.raises(CheckpointError, match=message):
            preprocessing_of(settings | change)
    with pytest.raises(CheckpointError, match="a vit is no encoder that can be read"):
        random_encoder(transformers.ViTConfig(), output=None, name="vit", preprocessing=margin)
