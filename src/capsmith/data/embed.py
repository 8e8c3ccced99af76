"""Encodes every photo of a data set once, into a store that goes on after any interruption."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from PIL import Image

from capsmith.data.manifest import Photo
from capsmith.data.store import (
    DESCRIPTION_NAME,
    FORMAT,
    EncoderFacts,
    Floats,
    Precision,
    Shard,
    StoreDescription,
    Unreadable,
    check_encoder,
    hash_of,
    map_shard,
    open_store,
    read_description,
    write_description,
    write_shard,
)
from capsmith.data.watch import Watch, unwatched
from capsmith.errors import DataError, ImageError
from capsmith.file_hashes import remembered_sha256
from capsmith.registry import find_encoder
from capsmith.runtime.captioner import Captioner
from capsmith.runtime.pictures import open_picture
from capsmith.runtime.read_ahead import read_ahead
from capsmith.runtime.session import usable_cpus

PHOTOS_PER_SHARD: Final = 512
_BATCH_SIZE: Final = 16


class FeatureEncoder(Protocol):
    """What makes features of pictures: a bundle's encoder here, others elsewhere."""

    @property
    def facts(self) -> EncoderFacts:
        """What the encoder is; a store remembers it."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """The (width, height) that it sees: large JPEGs are decoded at twice that or more."""
        ...

    def encode(self, pictures: Sequence[Image.Image]) -> Floats:
        """Features float32 (n, rows, width) of n upright RGB pictures of any size."""
        ...


class BundleEncoder:
    """The encoder of a captioner's bundle."""

    def __init__(self, captioner: Captioner) -> None:
        bundle = captioner.bundle
        path = bundle.folder / "encoder.onnx"
        if not bundle.has_encoder:
            path = find_encoder(bundle.encoder, bundle.preprocessing) or path
        weights = remembered_sha256(path) if path.exists() else ""
        self._captioner = captioner
        self.size = (bundle.preprocessing.width, bundle.preprocessing.height)
        self.facts = EncoderFacts(
            name=f"{bundle.encoder.name}@{weights[:16]}",
            preprocessing=hash_of(asdict(bundle.preprocessing)),
            rows=bundle.encoder.rows,
            width=bundle.encoder.width,
        )

    def encode(self, pictures: Sequence[Image.Image]) -> Floats:
        """As `Captioner.encode`."""
        return self._captioner.encode(pictures)


class EmbeddingEncoder:
    """What a captioner's `embed` gives: one row a photo, of length 1."""

    def __init__(self, captioner: Captioner) -> None:
        encoder = BundleEncoder(captioner)
        self._captioner = captioner
        self.size = encoder.size
        self.facts = replace(encoder.facts, name=f"{encoder.facts.name}:embedding", rows=1)

    def encode(self, pictures: Sequence[Image.Image]) -> Floats:
        """Embeddings float32 (n, 1, d)."""
        return self._captioner.embed(pictures)[:, None]


def embed(
    photos: Sequence[Photo],
    folder: Path,
    encoder: FeatureEncoder,
    *,
    dtype: Precision = "float32",
    photos_per_shard: int = PHOTOS_PER_SHARD,
    watch: Watch = unwatched,
) -> StoreDescription:
    """Encode the photos that the store in `folder` lacks, and make the store if there is none.

    Stopped in any way, it loses at most the shard that was not full and, run again, goes on; no
    photo is encoded twice into the store. Photos that cannot be read are listed in it, and tried
    again by the next run. Raises `DataError` for a folder that is no store, is another encoder's,
    or is being written by another process.
    """
    _refuse_foreign(folder)
    with _locked(folder):
        description = _begin(folder, encoder.facts, dtype)
        shards = _finished_shards(folder, description)
        done = {photo for _, ids in shards for photo in ids}
        todo = [photo for photo in photos if photo.id not in done]
        if description.is_complete and not todo:
            return description
        description = replace(description, is_complete=False)
        write_description(folder, description)
        writer = _Writer(folder, dtype, photos_per_shard, shards)
        unreadable = _encode(todo, encoder, writer, watch)
        description = replace(
            description,
            is_complete=True,
            count=sum(len(ids) for _, ids in shards),
            shards=tuple(Shard(file=name, count=len(ids)) for name, ids in shards),
            unreadable=tuple(unreadable),
        )
        write_description(folder, description)
        return description


def stored_embeddings(captioner: Captioner, photos: Sequence[Photo], folder: Path) -> Floats:
    """Embeddings float32 (n, d) of photos; those that the store in `folder` lacks are added to it.

    Raises `DataError` for a photo that cannot be read, and what `embed` raises.
    """
    encoder = EmbeddingEncoder(captioner)
    embed(photos, folder, encoder)
    return open_store(folder, encoder.facts).features([photo.id for photo in photos])[:, 0]


def nearest_photos(
    captioner: Captioner, asked: Sequence[Photo], known: Sequence[Photo], folder: Path
) -> list[Photo]:
    """For each photo asked for, the known one whose embedding is nearest (cosine).

    folder: a store for the embeddings; see `stored_embeddings`.
    """
    seen = stored_embeddings(captioner, known, folder)
    likeness = stored_embeddings(captioner, asked, folder) @ seen.T
    return [known[row] for row in likeness.argmax(axis=1)]


def _refuse_foreign(folder: Path) -> None:
    """Raise `DataError` for a folder with files of another kind, and leave nothing in it."""
    if folder.is_dir() and not (folder / DESCRIPTION_NAME).exists():
        strange = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if strange:
            raise DataError(f"{folder}: is no store and holds {strange[0]}; choose a new folder")


def _begin(folder: Path, facts: EncoderFacts, dtype: Precision) -> StoreDescription:
    """The store's description, made where the folder is new."""
    if (folder / DESCRIPTION_NAME).exists():
        description = read_description(folder)
        check_encoder(folder, description, facts)
        if description.dtype != dtype:
            raise DataError(f"{folder}: holds {description.dtype}, not {dtype}; make a new store")
        return description
    return StoreDescription(
        format=FORMAT,
        encoder=facts,
        dtype=dtype,
        is_complete=False,
        count=0,
        shards=(),
        unreadable=(),
    )


def _finished_shards(folder: Path, description: StoreDescription) -> list[tuple[str, list[str]]]:
    """(file, ids) of the shards that are there; remains of an interrupted write are deleted."""
    for remains in folder.glob(".*.tmp"):
        remains.unlink()
    paths = sorted(folder.glob("shard-[0-9]*[0-9].safetensors"))
    return [(path.name, map_shard(path, description)[0]) for path in paths]


def _encode(
    photos: Sequence[Photo], encoder: FeatureEncoder, writer: _Writer, watch: Watch
) -> list[Unreadable]:
    def opened(photo: Photo) -> Image.Image:
        return open_picture(photo.source.picture(), min_side=encoder.size)

    unreadable = []
    batch: list[tuple[str, Image.Image]] = []
    answers = read_ahead(opened, photos, batch_size=_BATCH_SIZE, workers=min(usable_cpus(), 4))
    futures = (future for answer in answers for future in answer)
    for photo, future in watch(zip(photos, futures, strict=True), len(photos)):
        try:
            batch.append((photo.id, future.result()))
        except ImageError as error:
            unreadable.append(Unreadable(id=photo.id, reason=str(error)))
        if len(batch) == _BATCH_SIZE:
            _encode_batch(batch, encoder, writer)
    _encode_batch(batch, encoder, writer)
    writer.flush()
    return unreadable


def _encode_batch(
    batch: list[tuple[str, Image.Image]], encoder: FeatureEncoder, writer: _Writer
) -> None:
    """Encode and empty the batch."""
    if not batch:
        return
    facts = encoder.facts
    features = encoder.encode([picture for _, picture in batch])
    if features.dtype != np.float32 or features.shape != (len(batch), facts.rows, facts.width):
        raise DataError(
            f"{facts.name} gives {features.dtype} {features.shape} where float32"
            f" {(len(batch), facts.rows, facts.width)} was promised; correct the encoder"
        )
    if not np.isfinite(features).all():
        bad = next(
            i for (i, _), row in zip(batch, features, strict=True) if not np.isfinite(row).all()
        )
        raise DataError(f"{facts.name} gives values that are not finite for {bad}; correct it")
    for (photo, _), row in zip(batch, features, strict=True):
        writer.add(photo, row)
    batch.clear()


@dataclass(slots=True)
class _Writer:
    """Collects features and writes them as shards; `shards` grows with each."""

    folder: Path
    dtype: Precision
    photos_per_shard: int
    shards: list[tuple[str, list[str]]]
    _ids: list[str] = field(default_factory=list)
    _rows: list[Floats] = field(default_factory=list)

    def add(self, photo: str, features: Floats) -> None:
        self._ids.append(photo)
        self._rows.append(features)
        if len(self._ids) == self.photos_per_shard:
            self.flush()

    def flush(self) -> None:
        if not self._ids:
            return
        # Not their count: a damaged shard may have been deleted.
        last = max((_number(name) for name, _ in self.shards), default=-1)
        name = f"shard-{last + 1:06d}.safetensors"
        with np.errstate(over="ignore"):
            features = np.stack(self._rows).astype(self.dtype)
        if not np.isfinite(features).all():
            raise DataError(f"{self.folder}: the features do not fit {self.dtype}; keep float32")
        write_shard(self.folder / name, self._ids, features)
        self.shards.append((name, self._ids))
        self._ids, self._rows = [], []


def _number(shard: str) -> int:
    return int(shard.partition("-")[2].partition(".")[0])


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes out of it; the lock ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield
        return
    import fcntl

    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"{folder}: another process is writing to it; wait for it, or choose another"
            ) from None
        yield
