"""The photos to train on and those to validate on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from capsmith.data.manifest import Manifest
from capsmith.data.sources import read_data
from capsmith.errors import DataError
from capsmith.training.config import DataConfig


def read_splits(config: DataConfig, base: Path) -> tuple[Manifest, Manifest]:
    """Read a recipe's data; photos of no split train where others validate.

    Splits are by image: those that the data says, or a share of all photos where `hold_out` says
    so. Raises `DataError` where either is empty.
    """
    manifest = read_data(config.sources, base=base)
    where = ", ".join(source.path for source in config.sources)
    if config.hold_out:
        if any(photo.split for photo in manifest.photos):
            raise DataError(
                f"{where}: has splits of its own, and data.hold_out would mix them; remove one"
            )
        manifest = manifest.hold_out(config.hold_out)
    unsplit = manifest.of_split("")
    train, validation = manifest.of_split("train"), manifest.of_split("val")
    if not validation.photos:
        raise DataError(
            f"{where}: its split val is empty; name a list of its photos as data.sources.N.splits,"
            " or set data.hold_out to a share such as 0.1"
        )
    train = replace(train, photos=(*train.photos, *unsplit.photos))
    if not train.photos:
        raise DataError(f"{where}: its split train is empty; check the lists of photos")
    return train, validation
