"""Image encoders and text towers by family and name: where a recipe's words become a module."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Literal

from capsmith import registry, strict_json
from capsmith.bundle import Bundle
from capsmith.errors import BundleError, ConfigError
from capsmith.models.encoders import open_efficientnet_lite
from capsmith.models.graph_weights import load_weights
from capsmith.models.image_encoder import ImageEncoder, Output
from capsmith.models.open_clip_models import open_clip_encoder, open_clip_text_tower
from capsmith.models.pretrained_encoders import load_encoder, published_encoder
from capsmith.models.text_towers import BundledTextTower, TextTower, load_text_tower
from capsmith.models.torchvision_encoders import torchvision_encoder
from capsmith.runtime.captioner import load

Family = Literal["shipped", "efficientnet-lite", "transformers", "open-clip", "torchvision"]
"""Where an encoder comes from.

shipped            the encoder of a bundle: a registered name or a folder ("": the embedded one)
efficientnet-lite  lite0, lite1 or lite2 with the weights published for ImageNet
transformers       CLIP, Chinese-CLIP, SigLIP or DINOv2: a hub's name or a folder
open-clip          any model of `open_clip`; `weights` is one of its tags or a file
torchvision        Inception v3, ResNets, VGGs and AlexNet without their last layer
"""


# What the encoders of this module are called, and what the embedded captioner's is called.
_NAME: Final = re.compile(r"([a-z-]+):(.+?)(@[^:@]+)?:(embedding|pooled|patches)")
_EMBEDDED_NAME: Final = re.compile(r"efficientnet-(lite[0-2])-\d+-grid6")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """An encoder as a recipe names it.

    weights: a published tag or a file, where the family needs one. output: see
    `image_encoder.Output`; "default" is what the family's captioners read: the embedding of a CLIP
    or SigLIP, the pooled vector of a DINOv2 or a classifier, the mean and the grid of an
    EfficientNet-Lite.
    """

    family: Family
    name: str = ""
    weights: str = ""
    output: Literal["default", "embedding", "pooled", "patches"] = "default"


def parse_spec(text: str, *, weights: str = "", output: str = "default") -> EncoderSpec:
    """The encoder that "FAMILY:NAME" names; `ConfigError` says which families there are."""
    family, _, name = text.partition(":")
    fields = {"family": family, "name": name, "weights": weights, "output": output}
    try:
        return strict_json.parse(EncoderSpec, fields)
    except ValueError as error:
        raise ConfigError(f"the encoder {strict_json.show(text)} {error}") from None


def open_encoder(spec: EncoderSpec, *, random: bool = False) -> ImageEncoder:
    """The encoder, frozen and in evaluation mode.

    random: random weights of the published sizes, which need neither a file nor a hub. Raises
    `ConfigError` for a name or output that the family does not have or a library that is not
    installed, `CheckpointError` where the weights cannot be had.
    """
    output = None if spec.output == "default" else spec.output
    if spec.weights and spec.family in ("shipped", "transformers"):
        raise ConfigError(
            f"{spec.family}:{spec.name} has its own weights; leave out {spec.weights}"
        )
    encoder: ImageEncoder
    match spec.family:
        case "shipped":
            encoder = _bundled(spec, random=random)
        case "efficientnet-lite":
            encoder = open_efficientnet_lite(
                spec.name, spec.weights, output=output or "patches", random=random
            )
        case "transformers":
            open_named = published_encoder if random else load_encoder
            encoder = open_named(spec.name, output=output)
        case "open-clip":
            encoder = open_clip_encoder(
                spec.name, spec.weights, output=output or "embedding", random=random
            )
        case "torchvision":
            encoder = torchvision_encoder(
                spec.name, spec.weights, output=output or "pooled", random=random
            )
    return encoder.requires_grad_(False).eval()


def open_text_tower(spec: EncoderSpec, *, random: bool = False) -> TextTower:
    """The text tower beside an encoder: captions into the space of its "embedding".

    random: as in `open_encoder`, for "open-clip" alone, whose library brings its tokenizer. Raises
    `ConfigError` where the encoder has no text tower, else as `open_encoder`.
    """
    if spec.family == "open-clip":
        return open_clip_text_tower(spec.name, spec.weights, random=random)
    if spec.family == "transformers" and not random:
        return load_text_tower(spec.name)
    if spec.family == "shipped" and not random:
        return BundledTextTower(load(spec.name or None))
    what = "cannot have a random text tower" if random else "has no text tower"
    raise ConfigError(
        f"{spec.family}:{spec.name} {what}; use a CLIP of open-clip or transformers, or a bundle"
        " with a text tower"
    )


def _bundled(spec: EncoderSpec, *, random: bool) -> ImageEncoder:
    """The encoder of a bundle, by default with the weights of its graph."""
    bundle = registry.open_bundle(spec.name or registry.DEFAULT)
    path = bundle.folder / "encoder.onnx"
    if not bundle.has_encoder:
        path = registry.find_encoder(bundle.encoder, bundle.preprocessing) or path
    if not path.exists():
        raise BundleError(
            f"{bundle.folder}: has no encoder, and {bundle.encoder.name} is not among the"
            " registered bundles; name the encoder itself"
        )
    made_of = _read_name(bundle.encoder.name)
    if made_of is None:
        raise BundleError(
            f"{bundle.folder}: its encoder {bundle.encoder.name} cannot be made a module again;"
            " name the encoder that it was exported from"
        )
    output = _embedding_of(bundle, made_of) if spec.output == "embedding" else spec.output
    if output not in ("default", made_of.output):
        made_of = replace(made_of, output=output)
    encoder = open_encoder(made_of, random=True)
    if not random:
        load_weights(encoder, path)
    encoder.preprocessing = bundle.preprocessing
    if (encoder.rows, encoder.width) == (bundle.encoder.rows, bundle.encoder.width):
        encoder.name = bundle.encoder.name
    return encoder


def _embedding_of(bundle: Bundle, made_of: EncoderSpec) -> Output:
    """The output that is a bundle's embedding of a picture, but for its length."""
    if made_of.output == "embedding":
        return made_of.output
    if bundle.encoder.embedding != "first":
        raise ConfigError(
            f"{bundle.folder}: embeds a picture by the mean of its features, which no output of its"
            " encoder is; leave out encoder.output"
        )
    return "pooled"


def _read_name(name: str) -> EncoderSpec | None:
    """The encoder that a bundle's name for it stands for."""
    embedded = _EMBEDDED_NAME.fullmatch(name)
    if embedded:
        return EncoderSpec(family="efficientnet-lite", name=embedded[1], output="patches")
    parts = _NAME.fullmatch(name)
    if not parts:
        return None
    family, title, weights, output = parts.groups(default="")
    return parse_spec(f"{family}:{title}", weights=weights.removeprefix("@"), output=output)
