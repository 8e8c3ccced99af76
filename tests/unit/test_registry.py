"""Names and folders lead to bundles; anything else is one clear line."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from capsmith import registry
from capsmith.bundle import read_bundle
from capsmith.errors import BundleError
from tests.bundles import toy_bundle

SHIPPED = registry.names()
needs_shipped = pytest.mark.skipif(not SHIPPED, reason="no bundle is embedded in this tree")


def test_a_folder_is_found_as_text_and_as_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_bundle(tmp_path / "toy")
    monkeypatch.chdir(tmp_path)
    found = (tmp_path / "toy").resolve()
    assert registry.find_bundle("toy") == found
    assert registry.find_bundle(tmp_path / "toy") == found
    assert registry.open_bundle("toy") == read_bundle(found)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(BundleError) as caught:
        registry.find_bundle("no-such-captioner")
    message = str(caught.value)
    assert message.startswith("no-such-captioner: no such bundle")
    assert "\n" not in message
    for name in SHIPPED or ("none in this installation",):
        assert name in message


def test_hard_links_are_refused_outside_the_package(tmp_path: Path) -> None:
    toy_bundle(tmp_path / "toy")
    os.link(tmp_path / "toy" / "mapper.onnx", tmp_path / "twin")
    with pytest.raises(BundleError, match="hard link"):
        registry.open_bundle(tmp_path / "toy")


def test_an_encoder_that_nobody_has(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "toy")
    assert registry.find_encoder(bundle.encoder, bundle.preprocessing) is None


@needs_shipped
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_bundle_is_whole_and_licensed(name: str) -> None:
    bundle = registry.open_bundle(name, verify="always")
    assert bundle.name == name
    assert bundle.licence.strip()
    assert (bundle.folder / "LICENSE.md").stat().st_size > 100
    assert (bundle.folder / "README.md").stat().st_size > 100


@needs_shipped
def test_the_default_ships() -> None:
    assert registry.DEFAULT in SHIPPED
    assert "en" in registry.open_bundle(registry.DEFAULT).languages
    assert sum(registry.open_bundle(name).size_bytes for name in SHIPPED) <= 25_000_000


@needs_shipped
def test_a_shipped_encoder_serves_bundles_that_name_it() -> None:
    bundle = registry.open_bundle(registry.DEFAULT)
    found = registry.find_encoder(bundle.encoder, bundle.preprocessing)
    assert found == bundle.folder / "encoder.onnx"
    other = dataclasses.replace(bundle.encoder, name="another")
    assert registry.find_encoder(other, bundle.preprocessing) is None
