"""From draws to tensors: features or pixels of photos, and their captions' tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.utils.data import Dataset

from capsmith.bundle import Preprocessing
from capsmith.data.manifest import Photo
from capsmith.data.store import FeatureStore
from capsmith.errors import DataError
from capsmith.models.caption_model import CaptionModel
from capsmith.models.text_only import Noise, with_noise
from capsmith.runtime.pictures import open_picture
from capsmith.runtime.preprocess import to_pixels
from capsmith.training.examples import Draw, Examples, Order


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch.

    inputs: features float32 (B, k, d), or pixels float32 (B, 3, H, W). tokens: int64 (N, T), start
    and end included; mask: bool (N, T), True where trained on or read; owner: int64 (N,), rows of
    `inputs`. photos: indices into the examples' photos.
    """

    inputs: Tensor
    tokens: Tensor
    mask: Tensor
    owner: Tensor
    photos: tuple[int, ...]

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(
            self.inputs.to(device, non_blocking=True),
            self.tokens.to(device, non_blocking=True),
            self.mask.to(device, non_blocking=True),
            self.owner.to(device, non_blocking=True),
            self.photos,
        )


class Inputs(Protocol):
    """What the captioner is given of a draw's photos."""

    def __call__(self, examples: Examples, draw: Draw, seed: tuple[int, ...]) -> Tensor:
        """Float32 (B, ...); whatever is random in it follows from `seed`."""
        ...


@dataclass(frozen=True, slots=True)
class StoredInputs:
    """Features of stores, each of another view of the photos; one of them is drawn.

    mirror: features are maps (channels, places) of a square, half of which are mirrored.
    """

    stores: tuple[FeatureStore, ...]
    mirror: bool = False

    def __call__(self, examples: Examples, draw: Draw, seed: tuple[int, ...]) -> Tensor:
        """Features float32 (B, k, d)."""
        rng = random.Random(repr(seed))
        store = self.stores[rng.randrange(len(self.stores))]
        made = torch.from_numpy(store.features([examples.photos[i].id for i in draw.photos]))
        if self.mirror:
            side = round(made.shape[2] ** 0.5)
            chosen = torch.tensor([rng.random() < 0.5 for _ in draw.photos])
            maps = made[chosen].view(-1, made.shape[1], side, side)
            made[chosen] = maps.flip(3).flatten(2)
        return made


@dataclass(frozen=True, slots=True)
class PixelInputs:
    """Photos decoded now, each time cut, mirrored and coloured another way where `augment`."""

    preprocessing: Preprocessing
    augment: bool

    def __call__(self, examples: Examples, draw: Draw, seed: tuple[int, ...]) -> Tensor:
        """Pixels float32 (B, 3, H, W)."""
        rows = []
        for position, index in enumerate(draw.photos):
            picture = self._open(examples.photos[index])
            if self.augment:
                picture = augmented(picture, random.Random(repr((*seed, position))))
            rows.append(torch.from_numpy(to_pixels(picture, self.preprocessing)))
        return torch.stack(rows)

    def _open(self, photo: Photo) -> Image.Image:
        size = (self.preprocessing.width, self.preprocessing.height)
        return open_picture(photo.source.picture(), min_side=size)


@dataclass(frozen=True, slots=True)
class TextInputs:
    """Embeddings of the captions themselves, with noise (CapDec).

    embeddings: float32 (lines, d), a row for every caption of the examples. offset: see
    `with_noise`.
    """

    embeddings: Tensor
    variance: float
    noise: Noise
    offset: Tensor | None = None

    def __call__(self, examples: Examples, draw: Draw, seed: tuple[int, ...]) -> Tensor:  # noqa: ARG002
        """Features float32 (N, 1, d): one row a caption, not a photo."""
        generator = torch.Generator().manual_seed(hash(seed) & 0x7FFFFFFF)
        chosen = self.embeddings[list(draw.lines)]
        noisy = with_noise(
            chosen,
            variance=self.variance,
            noise=self.noise,
            offset=self.offset,
            generator=generator,
        )
        return noisy[:, None]


def augmented(picture: Image.Image, rng: random.Random) -> Image.Image:
    """A random part of the picture, 55 to 100 % of its area, recoloured, mirrored or not."""
    width, height = picture.size
    area, shape = rng.uniform(0.55, 1.0), rng.uniform(0.85, 1.18)
    w = min(width, max(1, round(width * (area * shape) ** 0.5)))
    h = min(height, max(1, round(height * (area / shape) ** 0.5)))
    left, top = rng.randint(0, width - w), rng.randint(0, height - h)
    picture = picture.crop((left, top, left + w, top + h))
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhancer(picture).enhance(rng.uniform(0.75, 1.25))
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture


class Batches(Dataset[Batch]):
    """Batch number n of a run, by its number: what a `DataLoader` reads ahead.

    Of several processes each takes every `processes`-th photo or caption of a draw, from its own
    number on.
    """

    def __init__(
        self,
        order: Order,
        inputs: Inputs,
        model: CaptionModel,
        *,
        process: int = 0,
        processes: int = 1,
    ):
        self.order, self.inputs = order, inputs
        self._tensors = model.tensors
        self.process, self.processes = process, processes
        if order.batch < processes:
            raise DataError(
                f"a batch of {order.batch} cannot be dealt to {processes} processes; raise"
                " training.batch"
            )

    def __getitem__(self, number: int) -> Batch:
        """Batch `number`; see the class."""
        draw = self._share(self.order.draw(number))
        examples = self.order.examples
        seed = (self.order.seed, 2, number, self.process)
        lines = [examples.lines[i] for i in draw.lines]
        tokens, mask = self._tensors(
            [line.ids for line in lines],
            languages=[line.language for line in lines],
            details=[line.detail for line in lines],
        )
        ends = mask.sum(1) - 1
        is_cut = torch.tensor([line.is_cut for line in lines])
        mask[is_cut, ends[is_cut]] = False
        owner = torch.tensor(draw.owner)
        if isinstance(self.inputs, TextInputs):
            owner = torch.arange(len(lines))
        return Batch(self.inputs(examples, draw, seed), tokens, mask, owner, draw.photos)

    def _share(self, draw: Draw) -> Draw:
        if self.processes == 1:
            return draw
        if self.order.captions_a_photo:
            kept = draw.photos[self.process :: self.processes]
            chosen = [
                (line, kept.index(draw.photos[owner]))
                for line, owner in zip(draw.lines, draw.owner, strict=True)
                if draw.photos[owner] in kept
            ]
            return Draw(kept, tuple(c[0] for c in chosen), tuple(c[1] for c in chosen))
        lines = draw.lines[self.process :: self.processes]
        owners = draw.owner[self.process :: self.processes]
        photos = tuple(dict.fromkeys(draw.photos[owner] for owner in owners))
        return Draw(photos, lines, tuple(photos.index(draw.photos[owner]) for owner in owners))
