"""Encoders and text towers of `open_clip`: OpenAI's RN50 ... RN50x64 and every other of its models.

    embedding  the projected vector, not normalised: RN50 1024, RN101 512, RN50x4 640, RN50x16 768,
               RN50x64 1024; a ViT's `embed_dim`
    pooled     of a ResNet the mean of its last feature map (2048, 2048, 2560, 3072, 4096), which
               the attention pool would read; of a ViT what the projection would read
    patches    the pooled row, then the cells of the ResNet's last feature map, or the ViT's
               patches as the tower gives them beside the pooled row

Towers of `timm` (ConvNeXt, EVA, SigLIP ...) give the embedding alone.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import torch
from torch import Tensor, nn

from capsmith.bundle import Preprocessing
from capsmith.data.store import Floats
from capsmith.errors import CheckpointError, ConfigError
from capsmith.models.failures import first_sentence
from capsmith.models.image_encoder import ImageEncoder, Output, check_output, three
from capsmith.models.optional_library import optional_library

_INSTALL: Final = "torchvision open_clip_torch"
_TEXTS_AT_ONCE: Final = 64


class OpenClipEncoder(ImageEncoder):
    """A vision tower of `open_clip`."""

    def __init__(self, visual: nn.Module, *, name: str, preprocessing: Preprocessing):
        super().__init__(name=name, preprocessing=preprocessing)
        self.visual = visual

    def forward(self, pixels: Tensor) -> Tensor:
        """See `ImageEncoder`."""
        seen = self.visual(pixels)
        if isinstance(seen, tuple):
            pooled, patches = seen
            return torch.cat([pooled[:, None], patches], 1)
        vector: Tensor = seen
        return vector[:, None]


class FeatureMap(nn.Module):
    """Stands where a ResNet pools: (B, d, h, w) to the mean (B, d) and, if asked for, the cells
    (B, h * w, d)."""

    def __init__(self, *, keeps_cells: bool):
        super().__init__()
        self.keeps_cells = keeps_cells

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """See the class."""
        cells = x.flatten(2).transpose(1, 2)
        pooled = cells.mean(1)
        return (pooled, cells) if self.keeps_cells else pooled


class OpenClipTextTower:
    """A text tower of `open_clip` with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str):
        self._model, self._tokenizer, self.name = model, tokenizer, name

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embeddings float32 (n, d), not normalised; texts are cut at the context's length."""
        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                tokens = self._tokenizer(list(texts[start : start + _TEXTS_AT_ONCE]))
                rows.append(self._model.encode_text(tokens, normalize=False).numpy())
        return np.concatenate(rows)


def open_clip_encoder(name: str, weights: str, *, output: Output, random: bool) -> OpenClipEncoder:
    """The vision tower of the model `name`.

    weights: one of the model's tags ("openai"), which is downloaded once, or a file. Raises
    `ConfigError` for a name or tag that there is not, or an output that the tower does not give;
    `CheckpointError` for weights that cannot be had.
    """
    model, label = _model(_cleaned(name), weights, random=random)
    visual = _reduced(model.visual, output, label)
    return OpenClipEncoder(
        visual,
        name=f"{label}:{output}",
        preprocessing=_preprocessing(model.visual.preprocess_cfg, label),
    )


def open_clip_text_tower(name: str, weights: str, *, random: bool) -> OpenClipTextTower:
    """The text tower of the model `name`; arguments and errors as in `open_clip_encoder`."""
    model, label = _model(_cleaned(name), weights, random=random)
    model.visual = None
    with _quiet(), _in_one_line(label, "its tokenizer"):
        tokenizer = _library(label).get_tokenizer(_cleaned(name))
    return OpenClipTextTower(model, tokenizer, name=label)


def _cleaned(name: str) -> str:
    """The library's spelling of OpenAI's names: ViT-B-32 for ViT-B/32."""
    return name if ":" in name else name.replace("/", "-")


def _library(label: str) -> Any:
    return optional_library("open_clip", wanted_by=label, install=_INSTALL)


def _model(name: str, weights: str, *, random: bool) -> tuple[Any, str]:
    """The whole model, and what to call it."""
    label = f"open-clip:{name}"
    library = _library(label)
    if ":" in name:  # a folder or a repository, with its own weights
        weights, tags, facts = "", [], {}
    else:
        tags = library.list_pretrained_tags_by_model(name)
        _check_names(name, weights, tags, library, label=label, needs_weights=not random)
        # A file's pictures are prepared as for the model's first tag.
        facts = library.get_pretrained_cfg(name, weights if weights in tags else (*tags, "")[0])
    with _quiet(), _in_one_line(label, weights or "its weights"):
        model = library.create_model(
            name,
            pretrained=None if random else weights or None,
            # The library only warns where a tag's weights want the other activation.
            force_quick_gelu=weights in tags and facts.get("quick_gelu", False),
            force_preprocess_cfg=facts,
            pretrained_text=False,
            load_weights=not random,
            device=torch.get_default_device(),  # "meta" where sizes alone are asked for
        )
    tag = "" if random or not weights else f"@{Path(weights).stem}"
    return model.requires_grad_(False).eval(), f"{label}{tag}"


def _check_names(
    name: str, weights: str, tags: Sequence[str], library: Any, *, label: str, needs_weights: bool
) -> None:
    if name not in library.list_models():
        raise ConfigError(
            f"{label}: no model of open_clip; python -c 'import open_clip;"
            " print(open_clip.list_models())' lists them"
        )
    if needs_weights and weights not in tags and not Path(weights).is_file():
        what = f"has no weights {weights}" if weights else "needs weights"
        raise ConfigError(f"{label} {what}; give {' or '.join(['a file', *tags])}")


def _reduced(visual: Any, output: Output, label: str) -> nn.Module:
    """The tower without what comes after the output."""
    is_resnet, is_timm = hasattr(visual, "attnpool"), hasattr(visual, "trunk")
    check_output(output, ("embedding",) if is_timm else get_args(Output), label)
    if is_resnet and output != "embedding":
        visual.attnpool = FeatureMap(keeps_cells=output == "patches")
    if not is_resnet and not is_timm:
        visual.output_tokens = output == "patches"
        if output != "embedding":
            visual.proj = None
    tower: nn.Module = visual
    return tower


def _preprocessing(facts: dict[str, Any], label: str) -> Preprocessing:
    if facts["resize_mode"] == "longest":
        raise CheckpointError(f"{label}: pictures with borders cannot be had; use another model")
    size = facts["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return Preprocessing(
        width=width,
        height=height,
        resize="squash" if facts["resize_mode"] == "squash" else "crop",
        interpolation="bilinear" if facts["interpolation"] == "bilinear" else "bicubic",
        mean=three(facts["mean"]),
        std=three(facts["std"]),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's warnings; its errors, which it logs too, are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _in_one_line(label: str, what: str) -> Iterator[None]:
    """What the library raises while it loads `what`, as a `CheckpointError` of one line."""
    try:
        yield
    except Exception as error:  # downloads, pickles and shapes fail in many ways
        raise CheckpointError(
            f"{label}: cannot load {what} ({first_sentence(error)}); download its weights"
            " beforehand and name the file"
        ) from None
