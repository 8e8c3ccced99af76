"""Every error that capsmith raises on purpose.

CapsmithError            1   anything below
├── ConfigError          2   an option or a configuration file is wrong
├── DataError            1   captions or photo lists cannot be read
│   └── ImageError       1   a picture cannot be read
├── BundleError          3   a bundle is missing, broken, tampered with or too new
│   └── CheckpointError  3   a checkpoint is not recognised or unsafe
├── DivergedError        1   a training's loss is not a number any more
└── DownloadError        3   an address cannot be fetched, or must not be

The number is the command line's exit status. Each class has a stable `code`, which JSON output
and the server use. Messages are one line: what is wrong, with which file, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class CapsmithError(Exception):
    """Base of all errors that capsmith raises on purpose."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1


class ConfigError(CapsmithError):
    """An option or a configuration file is wrong."""

    code = "config"
    exit_status = 2


class DataError(CapsmithError):
    """A file of captions or a list of photos cannot be read."""

    code = "data"


class ImageError(DataError):
    """A picture cannot be read."""

    code = "image"


class BundleError(CapsmithError):
    """A bundle is missing, broken, tampered with or newer than this version reads."""

    code = "bundle"
    exit_status = 3


class CheckpointError(BundleError):
    """A checkpoint is not recognised, or cannot be read safely."""

    code = "checkpoint"


class DivergedError(CapsmithError):
    """A training's loss is not a number any more."""

    code = "diverged"


class DownloadError(CapsmithError):
    """An address cannot be fetched, or must not be."""

    code = "download"
    exit_status = 3
