"""Features of photos, encoded once: shards of safetensors, read by the photo's id.

A store is a folder: `store.json` says which encoder and preprocessing made it and lists the
shards; each shard holds "features" (n, rows, width) and, in its metadata, the ids of its n photos.
Shards appear whole or not at all and never change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from capsmith import atomic, strict_json
from capsmith.errors import ConfigError, DataError

Floats = NDArray[np.float32]
Precision = Literal["float32", "float16"]

FORMAT: Final = 1
DESCRIPTION_NAME: Final = "store.json"
_MAX_DESCRIPTION_BYTES: Final = 100_000_000
_TENSOR: Final = "features"
_DTYPES: Final = {"F32": "float32", "F16": "float16"}
_AGAIN: Final = "run capsmith embed again"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFacts:
    """What must be equal for two features to be comparable.

    name: names the encoder and its weights. preprocessing: a hash of how pictures become pixels
    (`hash_of`). The encoder gives `rows` x `width` values a picture.
    """

    name: str
    preprocessing: str
    rows: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A shard's file and how many photos are in it."""

    file: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A photo that has no features, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreDescription:
    """The content of `store.json`; while photos are being encoded it is not complete."""

    format: int
    encoder: EncoderFacts
    dtype: Precision
    is_complete: bool
    count: int
    shards: tuple[Shard, ...]
    unreadable: tuple[Unreadable, ...]


def hash_of(settings: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of settings that JSON can hold, whatever their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class FeatureStore:
    """The features of a data set, memory-mapped. Made by `open_store`.

    Its memory does not grow with the number of photos, but for their ids. It is pickled as its
    folder, so that every worker process maps the shards itself.
    """

    def __init__(self, folder: Path, description: StoreDescription) -> None:
        self._folder = folder
        self.description = description
        self._shards: list[NDArray[np.floating[Any]]] = []
        self._rows: dict[str, tuple[int, int]] = {}
        for number, shard in enumerate(description.shards):
            ids, mapped = map_shard(folder / shard.file, description)
            if len(ids) != shard.count:
                raise damaged(folder / shard.file, f"holds {len(ids)} photos, not {shard.count}")
            self._shards.append(mapped)
            for row, photo in enumerate(ids):
                if self._rows.setdefault(photo, (number, row)) != (number, row):
                    raise damaged(folder / shard.file, f"holds {photo}, as another shard does")

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self._folder, self.description.encoder)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, photo: object) -> bool:
        return photo in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def features(self, photos: Sequence[str]) -> Floats:
        """Features float32 (n, rows, width) of n photos by their ids, in their order.

        Raises `DataError` for an id that is not in the store.
        """
        encoder = self.description.encoder
        made = np.empty((len(photos), encoder.rows, encoder.width), np.float32)
        for index, photo in enumerate(photos):
            if photo not in self._rows:
                raise DataError(f"{self._folder}: has no photo {photo}; {_AGAIN} with this data")
            shard, row = self._rows[photo]
            made[index] = self._shards[shard][row]
        return made


def open_store(folder: Path, encoder: EncoderFacts) -> FeatureStore:
    """Open a store that `encoder` made.

    Raises `DataError` for another encoder's or another preprocessing's, for one that is not
    finished, and for one that is damaged.
    """
    description = read_description(folder)
    check_encoder(folder, description, encoder)
    if not description.is_complete:
        raise DataError(f"{folder}: is not finished; {_AGAIN}, it goes on where it stopped")
    return FeatureStore(folder, description)


def read_description(folder: Path) -> StoreDescription:
    """Read `store.json` strictly; raises `DataError`."""
    path = folder / DESCRIPTION_NAME
    try:
        value = strict_json.read_object(path, max_bytes=_MAX_DESCRIPTION_BYTES)
        description = strict_json.parse(StoreDescription, value)
    except FileNotFoundError:
        raise DataError(
            f"{folder}: is not a store (no {DESCRIPTION_NAME}); check the path"
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; check its permissions"
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: {error}; make the store again") from None
    if description.format != FORMAT:
        raise DataError(
            f"{path}: has format {description.format}, this capsmith reads {FORMAT};"
            " update capsmith"
        )
    return description


def write_description(folder: Path, description: StoreDescription) -> None:
    """Write `store.json` atomically."""
    text = json.dumps(asdict(description), indent=1, ensure_ascii=False)
    atomic.write_bytes(folder / DESCRIPTION_NAME, f"{text}\n".encode("utf-8", "backslashreplace"))


def check_encoder(folder: Path, description: StoreDescription, encoder: EncoderFacts) -> None:
    """Raise `DataError` where the store is not this encoder's."""
    made_by = description.encoder
    if made_by == encoder:
        return
    is_same = replace(made_by, preprocessing=encoder.preprocessing) == encoder
    what = "preprocessing" if is_same else "encoder"
    raise DataError(
        f"{folder}: was made by another {what} ({_shown(made_by)}, here {_shown(encoder)});"
        " make a new store"
    )


def write_shard(path: Path, ids: Sequence[str], features: NDArray[np.floating[Any]]) -> None:
    """Write one shard atomically; features (n, rows, width) of n ids."""
    library = safetensors()
    content = library.numpy.save({_TENSOR: features}, {"ids": json.dumps(list(ids))})
    atomic.write_bytes(path, content)


def map_shard(
    path: Path, description: StoreDescription
) -> tuple[list[str], NDArray[np.floating[Any]]]:
    """The ids of a shard and its features, memory-mapped; raises `DataError`."""
    library = safetensors()
    encoder = description.encoder
    try:
        with library.safe_open(path, "np") as opened:
            ids = json.loads((opened.metadata() or {}).get("ids", "[]"))
            tensor = opened.get_slice(_TENSOR)
            shape, dtype = tuple(tensor.get_shape()), _DTYPES.get(tensor.get_dtype())
        if shape != (len(ids), encoder.rows, encoder.width) or dtype != description.dtype:
            raise damaged(path, f"holds {dtype} {shape} for {len(ids)} photos")
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        return ids, np.memmap(path, dtype, "r", offset=8 + header, shape=shape)
    except (OSError, ValueError, library.SafetensorError) as error:
        raise damaged(path, f"cannot be read ({' '.join(str(error).split())[:200]})") from None


def safetensors() -> Any:
    """The library, which is not in the base install; raises `ConfigError` without it."""
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ConfigError(
            "a store of features needs safetensors: pip install 'capsmith[train]'"
        ) from None
    return safetensors


def damaged(path: Path, wrong: str) -> DataError:
    """The error for a shard that is not as it was written."""
    return DataError(f"{path}: {wrong}; delete it, and {_AGAIN}")


def _shown(encoder: EncoderFacts) -> str:
    return (
        f"{encoder.name}, {encoder.rows} x {encoder.width},"
        f" preprocessing {encoder.preprocessing[:12]}"
    )
