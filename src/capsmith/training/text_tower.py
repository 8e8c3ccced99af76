"""From a bundle and a recipe to the bundle with a text tower."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F

from capsmith.bundle import Bundle
from capsmith.bundle import TextTower as Section
from capsmith.data.embed import EmbeddingEncoder, embed
from capsmith.data.manifest import Photo
from capsmith.data.store import FeatureStore, Floats, open_store
from capsmith.data.watch import Watch, unwatched
from capsmith.errors import BundleError
from capsmith.evaluate.retrieval import AT, Retrieval, retrieval
from capsmith.export.text_tower import add_text_tower
from capsmith.models.text_tower import TextTower, train_text_tokenizer
from capsmith.runtime.captioner import Captioner
from capsmith.training.contrastive import padded, tokenise, train_tower
from capsmith.training.splits import read_splits
from capsmith.training.tower_recipe import TowerRecipe

_TEXTS_AT_ONCE = 256
_COMPARED = 64
"""Texts on which the graph is compared with its module."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The bundle with its tower, and the tower's recall on the validation photos by language."""

    bundle: Bundle
    recall: dict[str, Retrieval]


def give_text_tower(
    captioner: Captioner,
    recipe: TowerRecipe,
    output: Path,
    *,
    base: Path,
    store: Path | None = None,
    log: Callable[[str], None],
    watch: Watch = unwatched,
) -> Outcome:
    """Train a text tower for a captioner's encoder, and write the bundle with it as `output`.

    base: the folder that the recipe's paths are relative to. store: where the photos' embeddings
    are kept and looked for; stopped and run again, they go on there. The training itself takes
    minutes and begins anew. Raises `BundleError` where `output` exists, and what data and encoder
    raise.
    """
    if output.exists():
        raise BundleError(f"{output}: exists, and bundles never change; choose a new folder")
    train, validation = read_splits(recipe.data, base)
    with _folder(store) as folder:
        photos = [*train.photos, *validation.photos]
        log(f"embedding {len(photos)} photos, those that are not there yet")
        encoder = EmbeddingEncoder(captioner)
        embed(photos, folder, encoder, watch=watch)
        embedded = open_store(folder, encoder.facts)
        for failure in embedded.description.unreadable:
            log(f"left out: {failure.reason}")
        seen = [photo for photo in train.photos if photo.id in embedded]
        held_out = [photo for photo in validation.photos if photo.id in embedded]
        tower, tokenizer = _trained(recipe, seen, embedded, watch)
        recall = recall_by_language(tower, tokenizer, held_out, embedded)
    section = Section(
        languages=_languages(seen),
        max_tokens=recipe.tokenizer.max_tokens,
        scale=float(tower.scale.detach()),
    )
    texts = [caption.text for photo in held_out[:_COMPARED] for caption in photo.captions[:1]]
    made = add_text_tower(
        captioner.bundle,
        tower,
        tokenizer,
        section,
        output,
        sample=padded([each.ids for each in tokenizer.encode_batch_fast(texts)]),
        provenance={
            "text tower": f"{recipe.name}, trained on {len(seen)} photos",
            "text tower: validation": "; ".join(
                f"{language} {_shown(found)}" for language, found in recall.items()
            ),
        },
    )
    return Outcome(made, recall)


def recall_by_language(
    tower: TextTower,
    tokenizer: tokenizers.Tokenizer,
    photos: Sequence[Photo],
    embedded: FeatureStore,
) -> dict[str, Retrieval]:
    """Recall among the photos that have captions in a language, for each of their languages."""
    found = {}
    for language in _languages(photos):
        own = [photo for photo in photos if photo.texts(language)]
        texts = [(row, text) for row, photo in enumerate(own) for text in photo.texts(language)]
        vectors = _vectors(tower, tokenizer, [text for _, text in texts])
        rows = embedded.features([photo.id for photo in own])[:, 0]
        found[language] = retrieval(rows, vectors, [row for row, _ in texts])
    return found


def _trained(
    recipe: TowerRecipe, photos: Sequence[Photo], embedded: FeatureStore, watch: Watch
) -> tuple[TextTower, tokenizers.Tokenizer]:
    torch.manual_seed(recipe.training.seed)
    settings = recipe.tokenizer
    tokenizer = train_text_tokenizer(
        (caption.text for photo in photos for caption in photo.captions),
        vocab_size=settings.vocab_size,
        max_tokens=settings.max_tokens,
    )
    vectors = torch.from_numpy(embedded.features([photo.id for photo in photos])[:, 0])
    tower = TextTower(
        recipe.tower, vocab_size=tokenizer.get_vocab_size(), output_width=vectors.shape[1]
    )
    captions = tokenise(photos, tokenizer, recipe.data.max_tokens)
    return train_tower(tower, captions, vectors, recipe.training, watch=watch), tokenizer


def _vectors(tower: TextTower, tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> Floats:
    tokens = [each.ids for each in tokenizer.encode_batch_fast(texts)]
    with torch.inference_mode():
        rows = [
            F.normalize(tower(padded(tokens[start : start + _TEXTS_AT_ONCE])), dim=1).numpy()
            for start in range(0, len(tokens), _TEXTS_AT_ONCE)
        ]
    return np.concatenate(rows)


def _languages(photos: Sequence[Photo]) -> tuple[str, ...]:
    """The captions' languages, the most frequent first."""
    counts = Counter(caption.language for photo in photos for caption in photo.captions)
    return tuple(sorted(counts, key=lambda language: (-counts[language], language)))


def _shown(found: Retrieval) -> str:
    photo = ", ".join(f"R@{k} {share:.1%}" for k, share in zip(AT, found.photo, strict=True))
    return f"{photo} of {found.photos} photos by their texts"


@contextmanager
def _folder(store: Path | None) -> Iterator[Path]:
    """The store's folder, or one that is gone at the end."""
    if store is not None:
        yield store
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
