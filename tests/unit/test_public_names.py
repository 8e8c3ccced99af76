"""The public names are pinned, and importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import capsmith

NAMES = [
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


def test_the_public_names_are_these() -> None:
    assert sorted(capsmith.__all__) == NAMES
    assert set(NAMES) <= set(dir(capsmith))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_documented(name: str) -> None:
    assert getattr(capsmith, name).__doc__


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="caption_all"):
        _ = capsmith.caption_all  # type: ignore[attr-defined]


def test_importing_the_package_imports_none_of_its_weight() -> None:
    code = (
        "import sys, capsmith\n"
        "capsmith.Beam, capsmith.ImageError\n"
        "heavy = {'numpy', 'onnxruntime', 'PIL', 'tokenizers', 'torch', 'transformers', 'typer'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
