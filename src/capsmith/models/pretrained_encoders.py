"""Image encoders of `transformers`, by name or folder: CLIP, Chinese-CLIP, SigLIP, DINOv2.

A name is looked up on the hub as `transformers` does; a folder is read from disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from capsmith.bundle import Preprocessing
from capsmith.errors import CheckpointError, ConfigError

Output = Literal["embedding", "pooled", "patches"]
"""What an encoder gives of a picture.

embedding  one row: the vector in the space shared with text (ClipCap, CapDec)
pooled     one row: the vision tower's pooled output, before any projection (CLIPxGPT)
patches    the pooled row, then one row a patch, row by row of the picture
"""

_INTERPOLATIONS: dict[int, Literal["lanczos", "bilinear", "bicubic"]] = {
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}


class PretrainedEncoder(nn.Module):
    """A vision tower of `transformers`: pixels float32 (B, 3, height, width) to features (B, k, d).

    tower: gives `last_hidden_state` and `pooler_output`; class_rows: how many rows of the former
    are no patches. projection: from the pooled output to the space shared with text.
    `preprocessing` says how a picture becomes pixels.
    """

    def __init__(
        self,
        tower: nn.Module,
        projection: nn.Module | None,
        *,
        class_rows: int,
        output: Output,
        preprocessing: Preprocessing,
    ):
        super().__init__()
        self.tower = tower
        self.projection = projection if output == "embedding" else None
        self.class_rows, self.output = class_rows, output
        self.preprocessing = preprocessing

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        seen = self.tower(pixel_values=pixels)
        pooled: Tensor = seen.pooler_output[:, None]
        if self.output == "patches":
            return torch.cat([pooled, seen.last_hidden_state[:, self.class_rows :]], 1)
        if self.projection is None:
            return pooled
        embedding: Tensor = self.projection(pooled)
        return embedding


def load_encoder(name: str | Path, *, output: Output) -> PretrainedEncoder:
    """The encoder with its published weights, frozen and in evaluation mode.

    Its preprocessing is that of the file beside the weights. Raises `CheckpointError` for another
    family, or pictures prepared in a way that a bundle cannot describe; `ConfigError` for an output
    that the family does not have.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.image_processing_base import ImageProcessingMixin

    config = AutoConfig.from_pretrained(name)
    _check(config, output)
    model = AutoModel.from_pretrained(name, dtype="float32")
    settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
    return _encoder(model, output, preprocessing_of(settings))


def random_encoder(
    config: Any, *, output: Output, preprocessing: Preprocessing
) -> PretrainedEncoder:
    """The encoder of a config of `transformers`, its weights random: for dry runs and tests."""
    from transformers import AutoModel

    _check(config, output)
    auto: Any = AutoModel
    return _encoder(auto.from_config(config), output, preprocessing)


def preprocessing_of(settings: dict[str, Any]) -> Preprocessing:
    """What a `preprocessor_config.json` says, in a bundle's terms.

    Where a margin is cut off (short side to 256, then the centre 224, as DINOv2 has it), the short
    side is brought to the centre's size instead: more of the picture is seen, and training and
    captioning see the same. Raises `CheckpointError` for what a bundle cannot describe.
    """
    size, crop = _sides(settings["size"]), settings.get("do_center_crop", False)
    target = _sides(settings["crop_size"]) if crop else size
    if len(set(size)) > 1 and crop:
        raise CheckpointError(
            f"pictures resized to {size[1]} x {size[0]} and cropped cannot be had"
        )
    if not crop and "shortest_edge" in _named(settings["size"]):
        raise CheckpointError("pictures of free width cannot be had; the encoder needs a crop size")
    factor = settings.get("rescale_factor", 1 / 255)
    if abs(factor * 255 - 1) > 1e-6 or not settings.get("do_normalize", True):
        raise CheckpointError(f"pixels scaled by {factor} and not normalised cannot be had")
    if settings.get("resample", 3) not in _INTERPOLATIONS:
        raise CheckpointError(f"resampling filter {settings['resample']} cannot be had")
    return Preprocessing(
        width=target[1],
        height=target[0],
        resize="crop" if crop else "squash",
        interpolation=_INTERPOLATIONS[settings.get("resample", 3)],
        mean=_three(settings["image_mean"]),
        std=_three(settings["image_std"]),
    )


def _check(config: Any, output: Output) -> None:
    if config.model_type not in ("clip", "chinese_clip", "siglip", "dinov2"):
        raise CheckpointError(
            f"a {config.model_type} is no encoder that can be read; the families are clip,"
            " chinese_clip, siglip and dinov2"
        )
    if output not in get_args(Output):
        raise ConfigError(f'output is "{output}"; use one of {", ".join(get_args(Output))}')
    if config.model_type == "dinov2" and output == "embedding":
        raise ConfigError('a dinov2 has no embedding shared with text; use "pooled" or "patches"')


def _encoder(model: Any, output: Output, preprocessing: Preprocessing) -> PretrainedEncoder:
    # SigLIP pools by attention: it has no row that is not a patch, and no projection.
    encoder = PretrainedEncoder(
        getattr(model, "vision_model", model),
        getattr(model, "visual_projection", None),
        class_rows=0 if model.config.model_type == "siglip" else 1,
        output=output,
        preprocessing=preprocessing,
    )
    return encoder.requires_grad_(False).eval()


def _named(size: int | dict[str, int]) -> dict[str, int]:
    return {"shortest_edge": size} if isinstance(size, int) else size


def _sides(size: int | dict[str, int]) -> tuple[int, int]:
    """Height and width of a size given as a number or by names."""
    named = _named(size)
    if "shortest_edge" in named:
        return named["shortest_edge"], named["shortest_edge"]
    return named["height"], named["width"]


def _three(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
