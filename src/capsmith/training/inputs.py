"""What the captioner reads of photos: features made once, pixels at every step, or texts."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState
from PIL import Image

import capsmith
from capsmith.data.embed import BundleEncoder, FeatureEncoder, embed
from capsmith.data.manifest import Photo
from capsmith.data.store import FeatureStore, Floats, Precision, open_store
from capsmith.data.watch import Watch
from capsmith.models.encoder_names import open_text_tower
from capsmith.models.feature_encoder import TorchFeatureEncoder
from capsmith.models.text_only import modality_offset
from capsmith.training.assembly import Assembly
from capsmith.training.batches import Inputs, PixelInputs, StoredInputs, TextInputs, augmented


@dataclass(frozen=True, slots=True)
class Photos:
    """The photos of a run that can be read, and their features where those are stored.

    stores: the photos as they are, then other views of the training photos.
    """

    train: tuple[Photo, ...]
    validation: tuple[Photo, ...]
    stores: tuple[FeatureStore, ...]
    unreadable: tuple[str, ...]


def prepare(
    assembly: Assembly, train: Sequence[Photo], validation: Sequence[Photo], *,
    base: Path, output: Path, log: Callable[[str], None], watch: Watch,
) -> Photos:  # fmt: skip
    """Encode what is to be encoded before training.

    A store that the recipe names must hold every photo, and be of its encoder; without one the
    photos are encoded into OUTPUT/features, which goes on where it was stopped.
    """
    features = assembly.recipe.features
    if features.source == "pixels":
        return Photos(tuple(train), tuple(validation), (), ())
    wanted = [*validation] if features.source == "texts" else [*train, *validation]
    encoder = _feature_encoder(assembly)
    folder = base / features.store if features.store else output / "features"
    if not features.store:
        log(f"encoding {len(wanted)} photos into {folder}, those that are not there yet")
        _embed(wanted, folder, encoder, dtype=features.dtype, watch=watch)
    stores = [open_store(folder, encoder.facts)]
    failed = {entry.id: entry.reason for entry in stores[0].description.unreadable}
    validation = [photo for photo in validation if photo.id not in failed]
    if features.source == "stored":
        train = [photo for photo in train if photo.id not in failed]
        for view in range(1, features.views):
            seen, folder = ViewEncoder(encoder, view), output / f"features-{view}"
            log(f"encoding view {view} of {len(train)} photos into {folder}")
            _embed(train, folder, seen, dtype=features.dtype, watch=watch)
            stores.append(open_store(folder, seen.facts))
    return Photos(tuple(train), tuple(validation), tuple(stores), tuple(failed.values()))


def training_inputs(assembly: Assembly, photos: Photos) -> Inputs:
    """The inputs of training steps."""
    features = assembly.recipe.features
    if features.source == "pixels":
        return PixelInputs(assembly.encoder.preprocessing, features.augment)
    if features.source == "stored":
        return StoredInputs(photos.stores, mirror=features.depth > 0)
    tower = open_text_tower(assembly.recipe.encoder)
    captions = [caption.text for photo in photos.train for caption in photo.captions]
    embeddings = torch.from_numpy(tower.embed(captions))
    offset = None
    if features.offset:
        seen = photos.stores[0].features([photo.id for photo in photos.validation])
        offset = modality_offset(torch.from_numpy(seen[:, 0]), embeddings)
    return TextInputs(embeddings, features.variance, features.noise, offset)


def validation_inputs(assembly: Assembly, photos: Photos) -> Inputs:
    """The inputs of validation: photos as they are."""
    if photos.stores:
        return StoredInputs(photos.stores[:1])
    return PixelInputs(assembly.encoder.preprocessing, augment=False)


class ViewEncoder:
    """A `FeatureEncoder` of photos that are cut, mirrored and coloured at random.

    How, follows from the photo and the number of the view.
    """

    def __init__(self, encoder: FeatureEncoder, view: int) -> None:
        self._encoder, self._view = encoder, view
        self.size = encoder.size
        facts = encoder.facts
        self.facts = replace(facts, preprocessing=f"{facts.preprocessing}, view {view}")

    def encode(self, pictures: Sequence[Image.Image]) -> Floats:
        """As the encoder's."""
        return self._encoder.encode([self._seen(picture) for picture in pictures])

    def _seen(self, picture: Image.Image) -> Image.Image:
        thumb = picture.resize((16, 16), Image.Resampling.BOX).tobytes()
        return augmented(picture, random.Random(f"{self._view} {zlib.crc32(thumb)}"))


def _embed(
    photos: Sequence[Photo],
    folder: Path,
    encoder: FeatureEncoder,
    *,
    dtype: Precision,
    watch: Watch,
) -> None:
    """As `embed`; of several processes the main one encodes, the others wait."""
    state = PartialState()
    if state.is_main_process:
        embed(photos, folder, encoder, dtype=dtype, watch=watch)
    state.wait_for_everyone()


def _feature_encoder(assembly: Assembly) -> FeatureEncoder:
    spec = assembly.recipe.encoder
    if spec.family == "shipped" and spec.output == "default":
        return BundleEncoder(capsmith.load(spec.name or None))
    assert assembly.store_encoder is not None
    return TorchFeatureEncoder(assembly.store_encoder)
