"""Captions for photos: offline, on a CPU, without PyTorch.

    import capsmith

    captioner = capsmith.load()
    print(captioner.caption("dog.jpg").text)

The public names are imported when they are first used, so that `import capsmith` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from capsmith.errors import (
        BundleError,
        CapsmithError,
        CheckpointError,
        ConfigError,
        DataError,
        DownloadError,
        ImageError,
    )
    from capsmith.runtime.captioner import Captioner, load
    from capsmith.runtime.pictures import PictureLimits
    from capsmith.types import (
        Beam,
        Candidate,
        Caption,
        Contrastive,
        Greedy,
        Limits,
        Match,
        Sample,
        TopN,
    )

__all__ = [
    "Beam",
    "BundleError",
    "Candidate",
    "CapsmithError",
    "Caption",
    "Captioner",
    "CheckpointError",
    "ConfigError",
    "Contrastive",
    "DataError",
    "DownloadError",
    "Greedy",
    "ImageError",
    "Limits",
    "Match",
    "PictureLimits",
    "Sample",
    "TopN",
    "load",
]

_HOMES = {
    "Captioner": "capsmith.runtime.captioner",
    "PictureLimits": "capsmith.runtime.pictures",
    "load": "capsmith.runtime.captioner",
    **dict.fromkeys(
        (
            *("Beam", "Candidate", "Caption", "Contrastive", "Greedy", "Limits", "Match"),
            *("Sample", "TopN"),
        ),
        "capsmith.types",
    ),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'capsmith' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES.get(name, "capsmith.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
