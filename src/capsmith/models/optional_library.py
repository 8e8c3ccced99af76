"""Libraries that some encoders need and that no extra installs."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from capsmith.errors import ConfigError
from capsmith.models.failures import first_sentence


def optional_library(module: str, *, wanted_by: str, install: str) -> ModuleType:
    """The module; raises `ConfigError` with the command that installs it, where it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise ConfigError(
            f"{wanted_by} needs {missing}, which is not installed; run: pip install {install}"
        ) from None
    except RuntimeError as error:
        # A build for another PyTorch: its operators are not there.
        raise ConfigError(
            f"{module} does not fit the PyTorch that is installed ({first_sentence(error)});"
            " install the build of https://pytorch.org that matches it"
        ) from None
