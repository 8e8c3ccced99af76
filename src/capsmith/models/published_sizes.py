"""Sizes of published vision towers of `transformers`, for random weights without a hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from capsmith.bundle import Preprocessing
from capsmith.errors import ConfigError

_COLOURS: Final[dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]]] = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "dinov2": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
# A text tower is made beside each and thrown away.
_TINY_TEXT: Final = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
}


@dataclass(frozen=True, slots=True)
class _Tower:
    """Hidden size, layers, heads, side of a patch, side of the picture, width shared with text."""

    family: Literal["clip", "chinese_clip", "siglip", "dinov2"]
    hidden: int
    layers: int
    heads: int
    patch: int
    side: int = 224
    shared: int = 512


_TOWERS: Final = {
    "openai/clip-vit-base-patch32": _Tower("clip", 768, 12, 12, 32),
    "openai/clip-vit-base-patch16": _Tower("clip", 768, 12, 12, 16),
    "openai/clip-vit-large-patch14": _Tower("clip", 1024, 24, 16, 14, shared=768),
    "openai/clip-vit-large-patch14-336": _Tower("clip", 1024, 24, 16, 14, 336, 768),
    "OFA-Sys/chinese-clip-vit-base-patch16": _Tower("chinese_clip", 768, 12, 12, 16),
    "google/siglip-base-patch16-224": _Tower("siglip", 768, 12, 12, 16),
    "facebook/dinov2-small": _Tower("dinov2", 384, 12, 6, 14),
    "facebook/dinov2-base": _Tower("dinov2", 768, 12, 12, 14),
}


def published_sizes(name: str) -> tuple[Any, Preprocessing]:
    """The config of `transformers` and the preprocessing of a published name.

    Its text tower is a tiny one. Raises `ConfigError` for a name that is not known here.
    """
    if name not in _TOWERS:
        raise ConfigError(
            f"{name}: its sizes are not known, so it cannot have random weights; known are"
            f" {', '.join(_TOWERS)}"
        )
    tower = _TOWERS[name]
    mean, std = _COLOURS["clip" if tower.family == "chinese_clip" else tower.family]
    preprocessing = Preprocessing(
        width=tower.side,
        height=tower.side,
        resize="squash" if tower.family in ("chinese_clip", "siglip") else "crop",
        interpolation="bicubic",
        mean=mean,
        std=std,
    )
    return _config(tower), preprocessing


def _config(tower: _Tower) -> Any:
    import transformers

    sizes: dict[str, Any] = {
        "hidden_size": tower.hidden,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "patch_size": tower.patch,
    }
    if tower.family == "dinov2":  # pretrained on larger pictures than it is used for
        return transformers.Dinov2Config(**sizes, image_size=518)
    sizes |= {"intermediate_size": 4 * tower.hidden, "image_size": tower.side}
    if tower.family == "siglip":
        return transformers.SiglipConfig(text_config=_TINY_TEXT, vision_config=sizes)
    kinds: dict[str, Any] = {
        "clip": transformers.CLIPConfig,
        "chinese_clip": transformers.ChineseCLIPConfig,
    }
    return kinds[tower.family](
        text_config=_TINY_TEXT, vision_config=sizes, projection_dim=tower.shared
    )
