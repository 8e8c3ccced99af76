"""Features: how fast a store is read, and photos are encoded into one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import capsmith
from benchmarks.timing import medians, timed
from capsmith.data.embed import BundleEncoder, embed
from capsmith.data.manifest import Photo
from capsmith.data.sources import DataSource, read_data
from capsmith.data.store import (
    FORMAT,
    EncoderFacts,
    FeatureStore,
    Shard,
    StoreDescription,
    open_store,
    write_description,
    write_shard,
)
from capsmith.runtime.pictures import open_picture
from capsmith.runtime.preprocess import to_pixels
from capsmith.runtime.session import open_session

STORED, PER_SHARD = 2048, 512
READ, READS = 40, 50
EMBEDDED = 300


def run(captions: Path, *, threads: int, repeats: int) -> None:
    """Print the lines of both."""
    manifest = read_data([DataSource(path=str(captions))])
    captioner = capsmith.load(threads=1)
    with TemporaryDirectory() as folder:
        _print_reading(Path(folder, "random"), BundleEncoder(captioner).facts, repeats)
        _print_embedding(Path(folder), manifest.photos[:EMBEDDED], captioner, threads)


def _print_reading(folder: Path, facts: EncoderFacts, repeats: int) -> None:
    store = _random_store(folder, facts)
    ids = list(store)
    draw = np.random.default_rng(0)
    batches = [[ids[i] for i in draw.integers(len(ids), size=READ)] for _ in range(READS)]

    def read() -> None:
        for batch in batches:
            store.features(batch)

    rate = READ * READS / medians({"read": read}, repeats)["read"]
    size = facts.rows * facts.width * 4
    print(
        f"\nstore of {STORED} photos x {facts.rows} x {facts.width} float32, its files in the"
        f" system's cache, {READ} random ids at a time: {rate:,.0f} photos/s,"
        f" {rate * size / 1e6:,.0f} MB/s"
    )


def _random_store(folder: Path, facts: EncoderFacts) -> FeatureStore:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    shards: list[Shard] = []
    for first in range(0, STORED, PER_SHARD):
        name = f"shard-{len(shards):06d}.safetensors"
        features = draw.standard_normal((PER_SHARD, facts.rows, facts.width), np.float32)
        write_shard(folder / name, [f"{i}.jpg" for i in range(first, first + PER_SHARD)], features)
        shards.append(Shard(file=name, count=PER_SHARD))
    write_description(
        folder,
        StoreDescription(
            format=FORMAT, encoder=facts, dtype="float32", is_complete=True, count=STORED,
            shards=tuple(shards), unreadable=(),
        ),
    )  # fmt: skip
    return open_store(folder, facts)


def _print_embedding(
    folder: Path, photos: Sequence[Photo], captioner: capsmith.Captioner, threads: int
) -> None:
    seconds: dict[str, float] = {}
    with _one_core(), timed(seconds, "one"):
        embed(photos, folder / "one", BundleEncoder(capsmith.load(threads=1)))
    with timed(seconds, "all"):
        embed(photos, folder / "all", BundleEncoder(capsmith.load(threads=threads)))
    count = len(photos)
    print(
        f"{count} photos encoded into a store by {captioner.bundle.encoder.name}:"
        f" {count / seconds['one']:.1f} photos/s on one core,"
        f" {count / seconds['all']:.1f} photos/s with {threads} threads"
    )
    parts = _parts(folder / "parts", photos, captioner)
    whole = sum(parts.values())
    shares = ", ".join(
        f"{name} {part / whole:.0%} ({part / count * 1e3:.1f} ms)" for name, part in parts.items()
    )
    print(f"  where the time goes on one core, each part alone: {shares}")


def _parts(
    folder: Path, photos: Sequence[Photo], captioner: capsmith.Captioner
) -> dict[str, float]:
    """Seconds of each part of embedding, one after the other on one core."""
    preprocessing = captioner.bundle.preprocessing
    side = (preprocessing.width, preprocessing.height)
    encoder = open_session(captioner.bundle.folder / "encoder.onnx", threads=1)
    parts: dict[str, float] = {}
    with _one_core():
        with timed(parts, "decoding"):
            images = [open_picture(photo.source.picture(), min_side=side) for photo in photos]
        with timed(parts, "resizing"):
            pixels = [to_pixels(image, preprocessing)[None] for image in images]
        with timed(parts, "encoder"):
            features = [encoder.run(None, {"pixels": one})[0] for one in pixels]
        with timed(parts, "writing"):
            folder.mkdir()
            rest = iter(zip(photos, features, strict=True))
            while part := list(islice(rest, PER_SHARD)):
                rows = np.concatenate([row for _, row in part])
                write_shard(folder / "shard.safetensors", [photo.id for photo, _ in part], rows)
    return parts


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this thread, and those that it starts, on one CPU where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)
