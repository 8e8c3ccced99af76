"""Models of `transformers` by a hub's name or a folder: from this disk, or else from the hub."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capsmith.errors import CheckpointError
from capsmith.models.failures import first_sentence


def from_disk_or_hub(
    load: Callable[..., Any], name: str | Path, *, allow_download: bool = True, **options: Any
) -> Any:
    """What a `from_pretrained` of `transformers` gives for the name.

    What was downloaded before is taken from the disk without asking the hub for a newer one. No
    code that comes with a model is run. Raises `CheckpointError`, of one line, where neither has
    it or it cannot be read.
    """
    options["trust_remote_code"] = False
    with _quiet():
        try:
            return load(name, local_files_only=True, **options)
        except (OSError, ValueError) as error:
            if Path(name).is_dir() or not allow_download:
                raise _unreadable(name, error) from None
        try:
            return load(name, **options)
        except (OSError, ValueError) as error:
            raise _unreadable(name, error) from None


def label_of(name: str | Path) -> str:
    """The name; of a folder its last part alone, which says nothing of whose disk it is on."""
    return Path(name).resolve().name if Path(name).is_dir() else str(name)


def _unreadable(name: str | Path, error: Exception) -> CheckpointError:
    line = first_sentence(error)
    if Path(name).is_dir():
        return CheckpointError(f"{name}: no model of transformers ({line}); give another folder")
    return CheckpointError(
        f"{name}: not on this disk, and the hub does not give it ({line}); download it beforehand"
        f" (hf download {name}) or give the folder of a copy"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lines about every attempt to reach the hub and bars for reading a file."""
    from transformers.utils import logging as untyped

    messages: Any = untyped
    logger, has_bars = logging.getLogger("huggingface_hub"), messages.is_progress_bar_enabled()
    before = logger.level
    logger.setLevel(logging.ERROR)
    messages.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(before)
        if has_bars:
            messages.enable_progress_bar()
