"""Image encoders of `transformers`, by name or folder: CLIP, Chinese-CLIP, SigLIP, DINOv2.

embedding  the projected vector, not normalised: CLIP ViT-B 512, ViT-L 768; SigLIP's is its
           pooled vector; a DINOv2 has none
pooled     the class row after the last norm (CLIPxGPT: ViT-B 768, ViT-L 1024), SigLIP's
           attention pool
patches    the pooled row, then the rows of the last hidden state that are patches
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from capsmith.bundle import Preprocessing
from capsmith.errors import CheckpointError
from capsmith.models.hub_names import from_disk_or_hub, label_of
from capsmith.models.image_encoder import ImageEncoder, Output, check_output, three
from capsmith.models.published_sizes import published_sizes

_INTERPOLATIONS: dict[int, Literal["lanczos", "bilinear", "bicubic"]] = {
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}


class PretrainedEncoder(ImageEncoder):
    """A vision tower of `transformers`.

    tower: gives `last_hidden_state` and `pooler_output`; class_rows: how many rows of the former
    are no patches. projection: from the pooled output to the space shared with text.
    """

    def __init__(
        self,
        tower: nn.Module,
        projection: nn.Module | None,
        *,
        class_rows: int,
        output: Output,
        name: str,
        preprocessing: Preprocessing,
    ):
        super().__init__(name=name, preprocessing=preprocessing)
        self.tower = tower
        self.projection = projection if output == "embedding" else None
        self.class_rows, self.output = class_rows, output

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


def load_encoder(name: str | Path, *, output: Output | None = None) -> PretrainedEncoder:
    """The encoder with its published weights, frozen and in evaluation mode.

    output: None is the embedding, or what is nearest to one. Its preprocessing is that of the file
    beside the weights. Raises `CheckpointError` for a name that neither this disk nor the hub has,
    another family, or pictures prepared in a way that a bundle cannot describe; `ConfigError` for
    an output that the family does not have.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.image_processing_base import ImageProcessingMixin

    config = from_disk_or_hub(AutoConfig.from_pretrained, name)
    output = _output(config, output)
    model = from_disk_or_hub(AutoModel.from_pretrained, name, dtype="float32")
    settings, _ = from_disk_or_hub(ImageProcessingMixin.get_image_processor_dict, name)
    label = f"transformers:{label_of(name)}"
    return _encoder(model, output, label, preprocessing_of(settings))


def published_encoder(name: str | Path, *, output: Output | None = None) -> PretrainedEncoder:
    """The encoder of a published name with random weights, for which nothing is read or fetched.

    Raises `ConfigError` for a name whose sizes are not known here.
    """
    config, preprocessing = published_sizes(str(name))
    return random_encoder(config, output=output, name=str(name), preprocessing=preprocessing)


def random_encoder(
    config: Any, *, output: Output | None, name: str, preprocessing: Preprocessing
) -> PretrainedEncoder:
    """The encoder of a config of `transformers`, its weights random: for dry runs and tests."""
    from transformers import AutoModel

    auto: Any = AutoModel
    output = _output(config, output)
    return _encoder(auto.from_config(config), output, f"transformers:{name}", preprocessing)


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
        mean=three(settings["image_mean"]),
        std=three(settings["image_std"]),
    )


def _output(config: Any, output: Output | None) -> Output:
    """The output that is meant; raises where the model cannot give it."""
    family = config.model_type
    if family not in ("clip", "chinese_clip", "siglip", "dinov2"):
        raise CheckpointError(
            f"a {family} is no encoder that can be read; the families are clip, chinese_clip,"
            " siglip and dinov2"
        )
    allowed: tuple[Output, ...] = get_args(Output)
    if family == "dinov2":
        allowed = ("pooled", "patches")
    check_output(output or allowed[0], allowed, f"a {family}")
    return output or allowed[0]


def _encoder(model: Any, output: Output, label: str, prepared: Preprocessing) -> PretrainedEncoder:
    if model.config.model_type == "dinov2":
        model.embeddings.mask_token = None  # of its pretraining alone
    # SigLIP pools by attention: it has no row that is not a patch, and no projection.
    encoder = PretrainedEncoder(
        getattr(model, "vision_model", model),
        getattr(model, "visual_projection", None),
        class_rows=0 if model.config.model_type == "siglip" else 1,
        output=output,
        name=f"{label}:{output}",
        preprocessing=prepared,
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
