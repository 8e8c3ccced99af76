"""A store of features: joined by id, resumable after kill -9, refused where it does not fit."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import capsmith
from capsmith.data.embed import BundleEncoder, embed
from capsmith.data.manifest import Photo
from capsmith.data.sources import DataSource, read_data
from capsmith.data.store import EncoderFacts, FeatureStore, Floats, open_store
from capsmith.errors import ConfigError, DataError
from tests.bundles import toy_bundle
from tests.datasets import write_photos
from tests.integration.command import ROOT, environment
from tests.integration.command import capsmith as run

COUNT = 24


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Captions of 24 photos, of which the last is no photo."""
    names = [f"{number:02}.jpg" for number in range(COUNT)]
    write_photos(tmp_path / "photos", names)
    (tmp_path / "photos" / names[-1]).write_bytes(b"no photo")
    path = tmp_path / "captions.csv"
    path.write_text("image,caption\n" + "".join(f"{name},A photo .\n" for name in names))
    return path


@pytest.fixture
def encoder(tmp_path: Path) -> BundleEncoder:
    bundle = toy_bundle(tmp_path / "toy")
    return BundleEncoder(capsmith.load(bundle.folder, threads=1))


def photos_of(data: Path) -> tuple[Photo, ...]:
    return read_data([DataSource(path=str(data))]).photos


def encoded(store: FeatureStore) -> dict[str, bytes]:
    return {photo: store.features([photo]).tobytes() for photo in store}


def test_features_are_the_captioners_own_by_id(
    data: Path, encoder: BundleEncoder, tmp_path: Path
) -> None:
    photos = photos_of(data)
    made = embed(photos, tmp_path / "store", encoder, photos_per_shard=10)
    assert (made.count, [shard.count for shard in made.shards]) == (COUNT - 1, [10, 10, 3])
    assert [(failure.id, "23.jpg" in failure.reason) for failure in made.unreadable] == [
        ("23.jpg", True)
    ]
    store = open_store(tmp_path / "store", encoder.facts)
    assert len(store) == COUNT - 1
    assert "23.jpg" not in store
    ids = ["17.jpg", "03.jpg", "17.jpg"]
    captioner = capsmith.load(tmp_path / "toy", threads=1)
    files = [tmp_path / "photos" / name for name in ids]
    assert np.array_equal(store.features(ids), captioner.encode(files))
    again = pickle.loads(pickle.dumps(store))
    assert encoded(again) == encoded(store)
    with pytest.raises(DataError, match=r"has no photo 23\.jpg; run capsmith embed again"):
        store.features(["23.jpg"])


def test_new_photos_are_added_and_mended_ones_tried_again(
    data: Path, encoder: BundleEncoder, tmp_path: Path
) -> None:
    photos, folder = photos_of(data), tmp_path / "store"
    embed(photos[:9], folder, encoder, photos_per_shard=4)
    before = encoded(open_store(folder, encoder.facts))
    embed(photos, folder, encoder, photos_per_shard=4)
    write_photos(tmp_path / "photos", ["23.jpg"])
    made = embed(photos, folder, encoder)
    assert (made.count, made.unreadable) == (COUNT, ())
    after = encoded(open_store(folder, encoder.facts))
    assert after.items() >= before.items()
    unchanged = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    embed(photos, folder, encoder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"} == {
        path: when for path, when in unchanged.items() if path.name != ".lock"
    }


_SLOW = """
import sys, time
from pathlib import Path
import capsmith
from capsmith.data.embed import BundleEncoder, embed
from capsmith.data.sources import DataSource, read_data

class Slow(BundleEncoder):
    def encode(self, pictures):
        time.sleep(0.02)
        return super().encode(pictures)

photos = read_data([DataSource(path=sys.argv[1])]).photos
encoder = Slow(capsmith.load(sys.argv[2], threads=1))
print("ready", flush=True)
embed(photos, Path(sys.argv[3]), encoder, photos_per_shard=int(sys.argv[4]))
"""


def test_kill_9_at_any_moment_loses_and_repeats_nothing(
    encoder: BundleEncoder, tmp_path: Path
) -> None:
    names = [f"{number:03}.jpg" for number in range(300)]
    write_photos(tmp_path / "photos", names)
    data, folder = tmp_path / "captions.csv", tmp_path / "store"
    data.write_text("image,caption\n" + "".join(f"{name},A .\n" for name in names))
    command: list[str | Path] = [sys.executable, "-c", _SLOW, data, tmp_path / "toy", folder, "16"]
    for shards in (1, 6, 12):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env=environment(), cwd=ROOT
        ) as killed:
            assert killed.stdout is not None
            assert killed.stdout.readline() == b"ready\n"
            while len(list(folder.glob("shard-*"))) < shards:
                assert killed.poll() is None
                time.sleep(0.001)
            killed.send_signal(signal.SIGKILL)
        assert shards <= len(list(folder.glob("shard-*"))) < 19
        with pytest.raises(DataError, match="is not finished; run capsmith embed again"):
            open_store(folder, encoder.facts)
    (folder / ".shard-000999.safetensors.0123.tmp").write_bytes(b"remains")
    made = embed(photos_of(data), folder, encoder, photos_per_shard=16)
    assert made.count == sum(shard.count for shard in made.shards) == len(names)
    assert not list(folder.glob(".*.tmp"))
    whole = tmp_path / "whole"
    embed(photos_of(data), whole, encoder)
    assert encoded(open_store(folder, encoder.facts)) == encoded(open_store(whole, encoder.facts))


def test_another_encoder_or_preprocessing_is_refused(
    data: Path, encoder: BundleEncoder, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    embed(photos_of(data)[:2], folder, encoder)
    other = BundleEncoder(capsmith.load(toy_bundle(tmp_path / "other", seed=1).folder, threads=1))
    assert other.facts.name.partition("@")[0] == encoder.facts.name.partition("@")[0]
    for facts, what in (
        (other.facts, "encoder"),
        (replace(encoder.facts, preprocessing="0" * 64), "preprocessing"),
        (replace(encoder.facts, width=9), "encoder"),
    ):
        with pytest.raises(DataError, match=f"was made by another {what} .*make a new store"):
            open_store(folder, facts)
    with pytest.raises(DataError, match="was made by another encoder"):
        embed(photos_of(data), folder, other)
    with pytest.raises(DataError, match="holds float32, not float16; make a new store"):
        embed(photos_of(data), folder, encoder, dtype="float16")


@pytest.mark.parametrize("damage", ["cut", "flip", "header", "foreign"])
def test_a_damaged_shard_is_refused(
    data: Path, encoder: BundleEncoder, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "store"
    embed(photos_of(data)[:8], folder, encoder, photos_per_shard=4)
    first, second = sorted(folder.glob("shard-*"))
    content = first.read_bytes()
    header = content.index(b"features")
    changed = {
        "cut": content[:-1],
        "flip": content[:header] + b"X" + content[header + 1 :],
        "header": b"\xff" * 8 + content[8:],
        "foreign": second.read_bytes(),
    }
    first.write_bytes(changed[damage])
    with pytest.raises(DataError, match=r"shard-00000\d\.safetensors: .*run capsmith embed again"):
        open_store(folder, encoder.facts)
    first.unlink()
    assert embed(photos_of(data)[:8], folder, encoder).count == 8
    assert len(open_store(folder, encoder.facts)) == 8


def test_without_safetensors_one_line_says_what_to_install(
    data: Path, encoder: BundleEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ConfigError, match=r"needs safetensors: pip install 'capsmith\[train\]'"):
        embed(photos_of(data)[:1], tmp_path / "store", encoder)


def test_folders_that_are_no_stores_are_left_alone(
    data: Path, encoder: BundleEncoder, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match=r"is no store and holds letter\.txt; choose a new folder"):
        embed(photos_of(data), tmp_path / "mine", encoder)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    with pytest.raises(DataError, match="is not a store"):
        open_store(tmp_path / "mine", encoder.facts)
    folder = tmp_path / "store"
    embed(photos_of(data)[:2], folder, encoder)
    path = folder / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(DataError, match="has format 2, this capsmith reads 1"):
        open_store(folder, encoder.facts)


class Random:
    """Another encoder behind the same seam."""

    facts = EncoderFacts(name="random", preprocessing="0", rows=1, width=3)
    size = (8, 8)

    def __init__(self, bad: float = 0.0) -> None:
        self.bad = bad

    def encode(self, pictures: Sequence[Image.Image]) -> Floats:
        return np.array([[picture.resize((1, 1)).getpixel((0, 0))] for picture in pictures]).astype(
            np.float32
        ) + np.float32(self.bad)


def test_any_encoder_fits_the_seam_and_half_precision_is_kept(data: Path, tmp_path: Path) -> None:
    photos = photos_of(data)[:5]
    embed(photos, tmp_path / "half", Random(), dtype="float16")
    embed(photos, tmp_path / "full", Random())
    half, full = (open_store(tmp_path / name, Random.facts) for name in ("half", "full"))
    ids = [photo.id for photo in photos]
    assert half.features(ids).dtype == np.float32
    assert np.allclose(half.features(ids), full.features(ids), atol=0.1)
    assert (tmp_path / "half").joinpath("shard-000000.safetensors").stat().st_size < (
        tmp_path / "full"
    ).joinpath("shard-000000.safetensors").stat().st_size
    with pytest.raises(DataError, match=r"values that are not finite for 00\.jpg"):
        embed(photos, tmp_path / "bad", Random(bad=float("nan")))
    with pytest.raises(DataError, match="the features do not fit float16; keep float32"):
        embed(photos, tmp_path / "large", Random(bad=1e6), dtype="float16")


def test_the_command_encodes_lists_what_it_cannot_and_locks(data: Path, tmp_path: Path) -> None:
    toy = toy_bundle(tmp_path / "toy").folder
    folder = tmp_path / "store"
    arguments = ("embed", data, folder, "--model", toy, "--threads", "1")
    done = run(*arguments)
    assert done.status == 1
    assert len(done.complaints) == 1
    assert "23.jpg" in done.complaints[0]
    assert done.lines[0].startswith(f"{folder}: 23 photos, 4 x 8 float32 each, by ")
    write_photos(tmp_path / "photos", ["23.jpg"])
    import fcntl

    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run(*arguments)
        assert (done.status, done.lines) == (1, [])
        assert "another process is writing to it" in done.complaints[0]
    done = run(*arguments)
    assert (done.status, done.complaints) == (0, [])
    assert run(*arguments, "--half").status == 1
