"""Encoders of open_clip and torchvision: the libraries' own pixels and vectors, in ONNX too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from capsmith.errors import CheckpointError, ConfigError
from capsmith.export.graphs import export_encoder
from capsmith.export.parity import compare_outputs
from capsmith.models.encoder_names import EncoderSpec, open_encoder, open_text_tower
from capsmith.models.graph_weights import load_weights
from capsmith.models.image_encoder import ImageEncoder, Output
from capsmith.runtime.preprocess import to_pixels
from tests import encoder_libraries
from tests.photos import photo

SIDE = 64
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
TINY = {
    "tiny-RN": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "tiny-ViT": {"image_size": SIDE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
}
CELLS = {"tiny-RN": (SIDE // 32) ** 2, "tiny-ViT": (SIDE // 16) ** 2}
WIDTHS = {"tiny-RN": 512, "tiny-ViT": 64}
OUTPUTS: tuple[Output, ...] = ("embedding", "pooled", "patches")


@pytest.fixture(scope="module", autouse=True)
def _libraries() -> None:
    encoder_libraries.require()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """open_clip, which knows two tiny models besides its own."""
    import open_clip

    folder = tmp_path_factory.mktemp("configs")
    for name, vision in TINY.items():
        sizes = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(sizes))
    open_clip.add_model_config(folder)
    return open_clip


@pytest.fixture(params=TINY)
def published(request: Any, library: Any, tmp_path: Path) -> tuple[str, Any, Any, str]:
    """A tiny model's name, the library's model and transform, and a file with its weights."""
    torch.manual_seed(0)
    model, _, transform = library.create_model_and_transforms(request.param)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh ones would hide that they are read
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    return request.param, model.eval(), transform, str(tmp_path / "weights.pt")


def pixels_of(encoder: ImageEncoder) -> Tensor:
    return torch.from_numpy(to_pixels(photo("cat"), encoder.preprocessing))[None]


def opened(family: Any, name: str, weights: str, output: Any = "default") -> ImageEncoder:
    return open_encoder(EncoderSpec(family=family, name=name, weights=weights, output=output))


def test_pixels_and_vectors_are_those_of_open_clip(published: tuple[str, Any, Any, str]) -> None:
    name, model, transform, weights = published
    encoder = opened("open-clip", name, weights)
    pixels = pixels_of(encoder)
    torch.testing.assert_close(pixels, transform(photo("cat"))[None], atol=1e-5, rtol=1e-5)
    pooled = opened("open-clip", name, weights, "pooled")
    patches = opened("open-clip", name, weights, "patches")
    with torch.inference_mode():
        expected = model.encode_image(pixels)
        torch.testing.assert_close(encoder(pixels)[:, 0], expected)
        rows = patches(pixels)
        torch.testing.assert_close(rows[:, :1], pooled(pixels))
        if name == "tiny-ViT":
            projected = rows[:, 0] @ model.visual.proj
        else:
            torch.testing.assert_close(rows[:, 0], rows[:, 1:].mean(1))
            grid = rows[:, 1:].transpose(1, 2).unflatten(2, (SIDE // 32, SIDE // 32))
            projected = model.visual.attnpool(grid)
    torch.testing.assert_close(projected, expected)
    assert (patches.rows, patches.width) == (1 + CELLS[name], WIDTHS[name])
    assert (encoder.rows, encoder.width) == (1, 24)


@pytest.mark.slow
@pytest.mark.parametrize("output", OUTPUTS)
def test_towers_of_open_clip_export_and_come_back(
    published: tuple[str, Any, Any, str], output: Output, tmp_path: Path
) -> None:
    name, _, _, weights = published
    encoder = opened("open-clip", name, weights, output)
    assert encoder.name == f"open-clip:{name}@weights:{output}"
    check_export(encoder, tmp_path / "encoder.onnx")
    spec = EncoderSpec(family="open-clip", name=name, output=output)
    again = open_encoder(spec, random=True)
    load_weights(again, tmp_path / "encoder.onnx")
    pixels = pixels_of(encoder)
    torch.testing.assert_close(again(pixels), encoder(pixels))


def check_export(encoder: ImageEncoder, path: Path) -> None:
    facts = encoder.preprocessing
    export_encoder(encoder, path, height=facts.height, width=facts.width)
    compare_outputs(encoder, path, torch.cat([pixels_of(encoder)] * 3), tolerance=1e-4)


def test_captions_are_embedded_as_open_clip_embeds_them(library: Any, tmp_path: Path) -> None:
    model = library.create_model("tiny-ViT").eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    spec = EncoderSpec(family="open-clip", name="tiny-ViT", weights=str(tmp_path / "weights.pt"))
    tower = open_text_tower(spec)
    texts = ["A cat .", "a dog on a very long road to nowhere at all in the rain and the snow"] * 40
    tokens = library.get_tokenizer("tiny-ViT")(texts)
    with torch.inference_mode():
        expected = model.encode_text(tokens)
    torch.testing.assert_close(torch.from_numpy(tower.embed(texts)), expected)
    random = open_text_tower(EncoderSpec(family="open-clip", name="tiny-ViT"), random=True)
    assert random.embed(["a cat"]).shape == (1, 24)


@pytest.mark.parametrize(
    ("name", "width", "side"),
    [
        ("RN50", 1024, 224),
        ("RN101", 512, 224),
        ("RN50x4", 640, 288),
        ("RN50x16", 768, 384),
        ("RN50x64", 1024, 448),
        ("ViT-B/32", 512, 224),
    ],
)
@pytest.mark.slow
def test_openais_towers_have_the_published_sizes(name: str, width: int, side: int) -> None:
    encoder = open_encoder(EncoderSpec(family="open-clip", name=name), random=True)
    assert (encoder.rows, encoder.width, encoder.preprocessing.height) == (1, width, side)


@pytest.mark.slow
def test_a_published_tag_brings_its_activation_and_its_preprocessing() -> None:
    openais = EncoderSpec(family="open-clip", name="ViT-B-32", weights="openai")
    kinds = {type(module).__name__ for module in open_encoder(openais, random=True).modules()}
    assert "QuickGELU" in kinds
    siglip = EncoderSpec(family="open-clip", name="ViT-B-16-SigLIP", weights="webli")
    encoder = open_encoder(siglip, random=True)
    facts = encoder.preprocessing
    assert (facts.resize, facts.mean, encoder.width) == ("squash", (0.5, 0.5, 0.5), 768)
    with pytest.raises(ConfigError, match='no "patches"; use "embedding"'):
        open_encoder(
            EncoderSpec(family="open-clip", name=siglip.name, output="patches"), random=True
        )


@pytest.mark.slow
def test_rn50_exports(tmp_path: Path) -> None:
    check_export(
        open_encoder(EncoderSpec(family="open-clip", name="RN50"), random=True), tmp_path / "e.onnx"
    )


def vector_before_last_layer(network: Any, pixels: Tensor) -> Tensor:
    """What the last linear layer of a classifier reads."""
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network.eval()(pixels)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("name", "width", "side"),
    [
        ("resnet18", 512, 224),
        ("inception_v3", 2048, 299),
        ("alexnet", 4096, 224),
        ("vgg11_bn", 4096, 224),
    ],
)
@pytest.mark.slow
def test_beheaded_classifiers_give_what_their_last_layer_reads_in_onnx_too(
    name: str, width: int, side: int, tmp_path: Path
) -> None:
    from torchvision import models
    from torchvision.transforms import _presets as presets

    torch.manual_seed(0)
    # As with the published weights, which change the colours inside.
    options = {"transform_input": True, "init_weights": False} if name == "inception_v3" else {}
    network = models.get_model(name, weights=None, **options)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    encoder = opened("torchvision", name, str(tmp_path / "weights.pth"))
    assert (encoder.rows, encoder.width) == (1, width)
    assert encoder.name == f"torchvision:{name}@weights:pooled"
    pixels = pixels_of(encoder)
    transform = presets.ImageClassification(crop_size=side, resize_size=side)
    torch.testing.assert_close(pixels, transform(photo("cat"))[None], atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        vectors = encoder(pixels)
    torch.testing.assert_close(vectors[:, 0], vector_before_last_layer(network, pixels))
    check_export(encoder, tmp_path / "encoder.onnx")


def test_batch_norms_stay_as_they_are_while_an_encoder_is_finetuned() -> None:
    encoder = open_encoder(EncoderSpec(family="torchvision", name="resnet18"), random=True)
    encoder.requires_grad_(True).train()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    both = encoder(pixels)
    both.square().sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())
    torch.testing.assert_close(encoder(pixels[:1]), both[:1], atol=1e-5, rtol=1e-5)
    assert encoder.get_parameter("network.conv1.weight").grad is not None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"family": "open-clip", "name": "RN51"}, "no model of open_clip"),
        ({"family": "open-clip", "name": "RN50x4"}, "needs weights; give a file or openai"),
        ({"family": "open-clip", "name": "RN50", "weights": "x"}, "has no weights x; give a file"),
        ({"family": "torchvision", "name": "vgg12"}, "not one of alexnet, inception_v3, resnet101"),
        (
            {"family": "torchvision", "name": "vgg11", "weights": "V9"},
            "no weights V9; give a file or one of IMAGENET1K_V1",
        ),
        (
            {"family": "torchvision", "name": "vgg11", "output": "embedding"},
            'no embedding shared with text; use "pooled"',
        ),
    ],
)
def test_names_that_there_are_not_are_one_line(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_encoder(EncoderSpec(**spec))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("family", "name"), [("open-clip", "RN50"), ("torchvision", "resnet18")])
def test_files_that_are_no_weights_are_one_line(family: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / "words.pt").write_text("no weights")
    torch.save({"other.weight": torch.zeros(1)}, tmp_path / "other.pt")
    for file in ("words.pt", "other.pt"):
        with pytest.raises(CheckpointError, match=file) as caught:
            opened(family, name, str(tmp_path / file))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
