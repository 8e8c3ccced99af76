"""What the captioner reads of photos: features made once, pixels at every step, or texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState

import capsmith
from capsmith.data.embed import BundleEncoder, FeatureEncoder, embed
from capsmith.data.manifest import Photo
from capsmith.data.store import FeatureStore, open_store
from capsmith.data.watch import Watch
from capsmith.errors import ConfigError
from capsmith.models.encoder_names import open_text_tower
from capsmith.models.feature_encoder import TorchFeatureEncoder
from capsmith.training.assembly import Assembly
from capsmith.training.batches import Inputs, PixelInputs, StoredInputs, TextInputs
from capsmith.training.examples import Examples


@dataclass(frozen=True, slots=True)
class Photos:
    """The photos of a run that can be read, and their features where those are stored."""

    train: tuple[Photo, ...]
    validation: tuple[Photo, ...]
    store: FeatureStore | None
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
        return Photos(tuple(train), tuple(validation), None, ())
    wanted = [*validation] if features.source == "texts" else [*train, *validation]
    encoder = _feature_encoder(assembly)
    folder = base / features.store if features.store else output / "features"
    if not features.store:
        log(f"encoding {len(wanted)} photos into {folder}, those that are not there yet")
        _embed(wanted, folder, encoder, watch=watch)
    store = open_store(folder, encoder.facts)
    failed = {entry.id: entry.reason for entry in store.description.unreadable}
    if features.source == "stored":
        train = [photo for photo in train if photo.id not in failed]
    validation = [photo for photo in validation if photo.id not in failed]
    return Photos(tuple(train), tuple(validation), store, tuple(failed.values()))


def training_inputs(assembly: Assembly, photos: Photos, examples: Examples) -> Inputs:
    """The inputs of training steps."""
    features = assembly.recipe.features
    if features.source == "texts":
        tower = open_text_tower(assembly.recipe.encoder)
        captions = [caption.text for photo in photos.train for caption in photo.captions]
        if len(captions) != len(examples.lines):
            raise ConfigError("captions and examples differ; this is a defect of capsmith")
        embeddings = torch.from_numpy(tower.embed(captions))
        return TextInputs(embeddings, features.variance, features.noise)
    return validation_inputs(assembly, photos, augment=features.augment)


def validation_inputs(assembly: Assembly, photos: Photos, *, augment: bool = False) -> Inputs:
    """The inputs of validation: photos as they are."""
    if photos.store is not None:
        return StoredInputs(photos.store)
    return PixelInputs(assembly.encoder.preprocessing, augment)


def _embed(photos: Sequence[Photo], folder: Path, encoder: FeatureEncoder, *, watch: Watch) -> None:
    """As `embed`; of several processes the main one encodes, the others wait."""
    state = PartialState()
    if state.is_main_process:
        embed(photos, folder, encoder, watch=watch)
    state.wait_for_everyone()


def _feature_encoder(assembly: Assembly) -> FeatureEncoder:
    spec = assembly.recipe.encoder
    if spec.family == "shipped":
        return BundleEncoder(capsmith.load(spec.name or None))
    return TorchFeatureEncoder(assembly.encoder)
