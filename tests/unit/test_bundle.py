"""Bundles are read strictly, written once, and every format stays readable."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capsmith import bundle as bundles
from capsmith import file_hashes
from capsmith.bundle import FORMAT, read_bundle, write_bundle
from capsmith.errors import BundleError
from capsmith.types import Beam, Contrastive, Greedy, Limits, Sample, Strategy, TopN
from tests.bundles import (
    bundle_with_text_tower,
    names,
    rewrite,
    toy_bundle,
    toy_description,
    toy_files,
)

COMMITTED = Path(__file__).resolve().parents[1] / "data" / "bundles"


def refusal(folder: Path) -> str:
    """The message with which a bundle is refused: one line that names the folder."""
    with pytest.raises(BundleError) as caught:
        read_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    assert "; " in message, "the message says what to do"
    return message


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = toy_bundle(tmp_path / "toy")
    read = read_bundle(tmp_path / "toy")
    assert read == written
    assert read.folder == (tmp_path / "toy").resolve()
    assert read.languages == ("en", "de")
    assert read.encoder.width == 8
    assert read.preprocessing.std == (0.25, 0.25, 0.25)
    assert read.decoding.strategy == Beam(size=3)
    assert read.decoding.limits == Limits()
    assert read.has_encoder
    assert not read.has_text_tower
    assert read.size_bytes == sum(map(len, toy_files().values()))


def test_a_description_object_writes_the_same_bundle(tmp_path: Path) -> None:
    first = toy_bundle(tmp_path / "a")
    write_bundle(tmp_path / "b", first, {n: first.folder / n for n in first.files})
    for name in names(first.folder):
        assert (tmp_path / "b" / name).read_bytes() == (first.folder / name).read_bytes()


@pytest.mark.parametrize(
    "strategy",
    [
        Greedy(),
        Beam(size=4, groups=2, diversity=0.5, rerank="consensus"),
        Sample(top_p=0.9, seed=7),
        TopN(schedule=((2, 3),)),
        Contrastive(k=6),
    ],
)
def test_every_strategy_survives(tmp_path: Path, strategy: Strategy) -> None:
    first = toy_bundle(tmp_path / "a")
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(strategy).__name__).lower()
    fields = {name: getattr(strategy, name) for name in strategy.__dataclass_fields__}
    limits = {"max_tokens": 9, "forbidden_words": ["cat"], "stop": ["."]}
    decoding = {"strategy": {"kind": kind, **fields}, "limits": limits}
    written = toy_bundle(tmp_path / "b", changes={"decoding": decoding})
    assert written.decoding.strategy == strategy
    assert read_bundle(tmp_path / "b").decoding == written.decoding
    assert written.decoding.limits == Limits(max_tokens=9, forbidden_words=("cat",), stop=(".",))
    assert first.decoding != written.decoding


@pytest.mark.parametrize("folder", sorted(COMMITTED.iterdir()), ids=lambda folder: folder.name)
def test_every_format_ever_written_stays_readable(folder: Path) -> None:
    read = read_bundle(folder, verify="always", allow_hard_links=True)
    assert f"format-{read.format}" == folder.name
    assert read.name == "toy"


def test_every_format_has_its_committed_bundle() -> None:
    assert {f"format-{n}" for n in range(1, FORMAT + 1)} == set(names(COMMITTED))


def test_a_bundle_never_changes(tmp_path: Path) -> None:
    toy_bundle(tmp_path / "toy")
    before = (tmp_path / "toy" / "captioner.json").read_bytes()
    with pytest.raises(BundleError, match="never change"):
        write_bundle(tmp_path / "toy", toy_description(), toy_files(seed=1))
    assert (tmp_path / "toy" / "captioner.json").read_bytes() == before
    assert names(tmp_path) == ["toy"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"decoder.onnx": None}, "does not list decoder.onnx"),
        ({"../evil.onnx": b""}, "no bundle has"),
        ({"script.py": b""}, "no bundle has"),
        ({"text.onnx.data": b"1"}, "without text.onnx"),
    ],
)
def test_a_bundle_that_would_be_refused_is_not_written(
    tmp_path: Path, files: dict[str, bytes | None], said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        toy_bundle(tmp_path / "toy", files=files)
    assert names(tmp_path) == []


def test_a_description_with_a_fault_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="language_model"):
        toy_bundle(tmp_path / "toy", changes={"language_model": {}})
    with pytest.raises(BundleError, match="JSON"):
        toy_bundle(tmp_path / "toy", changes={"licence": object()})
    with pytest.raises(BundleError, match=r"missing\.onnx"):
        write_bundle(
            tmp_path / "toy",
            toy_description(),
            {**toy_files(), "mapper.onnx": tmp_path / "missing.onnx"},
        )
    assert names(tmp_path) == []


def test_optional_files(tmp_path: Path) -> None:
    extra = {"classes.txt": b"c", "decoder.onnx.data": b"d"}
    read = toy_bundle(tmp_path / "toy", files={**extra, "encoder.onnx": None})
    assert read_bundle(tmp_path / "toy") == read
    assert not read.has_encoder


TOWER = {"languages": ["en"], "max_tokens": 8, "scale": 10.0}


def test_a_text_tower_is_two_files_and_a_section(tmp_path: Path) -> None:
    read = bundle_with_text_tower(tmp_path / "toy")
    assert read_bundle(tmp_path / "toy") == read
    assert read.has_text_tower
    assert read.text_tower is not None
    assert read.text_tower.max_tokens == 8


@pytest.mark.parametrize(
    ("section", "files", "wrong"),
    [
        (TOWER, ("text.onnx",), r"does not list text_tokenizer\.json"),
        (TOWER, ("text_tokenizer.json",), r"does not list text\.onnx"),
        (None, ("text.onnx",), r"lists text\.onnx without a text_tower"),
        (TOWER | {"scale": 0.0}, ("text.onnx", "text_tokenizer.json"), "scale"),
        (TOWER | {"max_tokens": 0}, ("text.onnx", "text_tokenizer.json"), "max_tokens"),
    ],
)
def test_half_a_text_tower_is_refused(
    tmp_path: Path, section: dict[str, Any] | None, files: tuple[str, ...], wrong: str
) -> None:
    with pytest.raises(BundleError, match=wrong):
        toy_bundle(
            tmp_path / "toy", changes={"text_tower": section}, files=dict.fromkeys(files, b"t")
        )
    assert names(tmp_path) == []


def test_format_1_knew_no_text_tower_of_its_own(tmp_path: Path) -> None:
    folder = bundle_with_text_tower(tmp_path / "toy").folder
    rewrite(folder, lambda d: d.update(format=1))
    with pytest.raises(BundleError, match="format 1"):
        read_bundle(folder)


Edit = Callable[[dict[str, Any]], object]

EDITS: dict[str, tuple[Edit, str]] = {
    "newer": (lambda d: d.update(format=FORMAT + 1, novelty=1), "update capsmith"),
    "older than the first": (lambda d: d.update(format=0), "never existed"),
    "format as text": (lambda d: d.update(format="1"), "a whole number"),
    "format as true": (lambda d: d.update(format=True), "a whole number"),
    "unknown field": (lambda d: d.update(novelty=1), "unknown field 'novelty'"),
    "unknown inner field": (lambda d: d["encoder"].update(depth=1), "unknown field encoder.'dep"),
    "missing field": (lambda d: d.pop("licence"), "lacks the field licence"),
    "missing inner field": (lambda d: d["prefix"].pop("rows"), "lacks the field prefix.rows"),
    "number for text": (lambda d: d.update(licence=3), "must be text"),
    "text for number": (lambda d: d["prefix"].update(rows="4"), "prefix.rows"),
    "fraction": (lambda d: d["prefix"].update(rows=4.5), "must be a whole number"),
    "null": (lambda d: d.update(languages=None), "must be a list"),
    "two colours": (lambda d: d["preprocessing"].update(mean=[0, 0]), "a list of 3"),
    "no such choice": (lambda d: d["preprocessing"].update(resize="stretch"), "one of 'squash'"),
    "zero width": (lambda d: d["prefix"].update(width=0), "out of range"),
    "huge width": (lambda d: d["prefix"].update(width=10**30), "out of range"),
    "huge float": (lambda d: d["preprocessing"].update(std=[10**400, 1, 1]), "finite"),
    "zero std": (lambda d: d["preprocessing"].update(std=[0, 1, 1]), "std"),
    "no language": (lambda d: d.update(languages=[]), "at least one language"),
    "a language twice": (lambda d: d.update(languages=["en", "en"]), "each once"),
    "tokens of no language": (lambda d: d["language_tokens"].update(fr=[1]), "not listed"),
    "token outside": (lambda d: d["language_model"].update(start_tokens=[999]), "vocabulary"),
    "no stop token": (lambda d: d["language_model"].update(stop_tokens=[]), "no stop token"),
    "strategy unknown": (lambda d: d["decoding"].update(strategy={"kind": "luck"}), '"kind"'),
    "strategy option": (lambda d: d["decoding"]["strategy"].update(luck=1), "unknown field"),
    "unknown quirk": (lambda d: d.update(quirks={"odd": True}), "unknown field quirks.'odd'"),
    "path as name": (lambda d: d.update(name="../toy"), "lower-case letters"),
    "file not there": (lambda d: d["files"].update({"classes.txt": _facts()}), "is missing"),
    "hash no hash": (lambda d: d["files"]["mapper.onnx"].update(sha256="0"), "proper sha256"),
    "files as list": (lambda d: d.update(files=[]), "must be an object"),
}


def _facts() -> dict[str, Any]:
    return {"sha256": "0" * 64, "size_bytes": 1}


@pytest.mark.parametrize("fault", EDITS)
def test_what_is_wrong_is_named(tmp_path: Path, fault: str) -> None:
    edit, said = EDITS[fault]
    toy_bundle(tmp_path / "toy")
    rewrite(tmp_path / "toy", edit)
    assert said in refusal(tmp_path / "toy")


TEXTS = {
    "empty": (b"", "is not JSON"),
    "not JSON": (b"{", "is not JSON"),
    "a list": (b"[]", "is not a JSON object"),
    "not UTF-8": (b'{"name": "\xff"}', "is not UTF-8"),
    "too large": (b" " * 1_000_001, "is larger than"),
    "deep": (b'{"a":' + b"[" * 100_000, "nested too deeply"),
    "twice": (b'{"format": 1, "format": 1}', "twice"),
    "a file twice": (b'{"files": {"a": 1, "a": 1}}', "twice"),
    "not a number": (b'{"format": NaN}', "not JSON"),
    "endless digits": (b'{"format": ' + b"9" * 5000 + b"}", ""),
}


@pytest.mark.parametrize("fault", TEXTS)
def test_a_description_that_is_no_json_object(tmp_path: Path, fault: str) -> None:
    data, said = TEXTS[fault]
    toy_bundle(tmp_path / "toy")
    (tmp_path / "toy" / "captioner.json").write_bytes(data)
    assert said in refusal(tmp_path / "toy")


def test_not_a_bundle(tmp_path: Path) -> None:
    assert "no such bundle folder" in refusal(tmp_path / "absent")
    assert "is not a bundle" in refusal(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    assert "is a file" in refusal(tmp_path / "file")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs permissions that hold")
def test_no_permission(tmp_path: Path) -> None:
    toy_bundle(tmp_path / "toy")
    (tmp_path / "toy" / "mapper.onnx").chmod(0)
    assert "cannot be read" in refusal(tmp_path / "toy")


def test_large_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(file_hashes, "_REMEMBER_OVER_BYTES", 1000)
    toy_bundle(tmp_path / "toy")
    read_bundle(tmp_path / "toy")
    large = tmp_path / "toy" / "decoder.onnx"
    state = large.stat()
    data = large.read_bytes()
    large.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(large, ns=(state.st_atime_ns, state.st_mtime_ns))
    read_bundle(tmp_path / "toy")  # size and time are as they were
    with pytest.raises(BundleError, match="SHA-256"):
        read_bundle(tmp_path / "toy", verify="always")
    os.utime(large, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert "SHA-256" in refusal(tmp_path / "toy")
    remembered = json.loads((file_hashes.cache_folder() / "file-hashes.json").read_text())
    assert str(large.resolve()) in remembered
    assert file_hashes.cache_folder().is_relative_to(tmp_path)


def test_small_files_are_always_hashed(tmp_path: Path) -> None:
    toy_bundle(tmp_path / "toy")
    read_bundle(tmp_path / "toy")
    path = tmp_path / "toy" / "README.md"
    state = path.stat()
    path.write_bytes(path.read_bytes().replace(b"toy", b"top"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert "README.md: is not the file" in refusal(tmp_path / "toy")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": 1}'])
def test_a_broken_memory_of_hashes_only_costs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "_REMEMBER_OVER_BYTES", 1000)
    file_hashes.cache_folder().mkdir(parents=True)
    (file_hashes.cache_folder() / "file-hashes.json").write_bytes(content)
    toy_bundle(tmp_path / "toy")
    assert read_bundle(tmp_path / "toy").name == "toy"


def test_loading_writes_nothing_into_the_bundle(tmp_path: Path) -> None:
    folder = toy_bundle(tmp_path / "toy").folder
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    for path in folder.iterdir():
        path.chmod(stat.S_IREAD)
    read_bundle(folder, verify="always")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_graph_names_are_those_of_the_design() -> None:
    assert bundles.GRAPHS == ("encoder.onnx", "mapper.onnx", "decoder.onnx", "text.onnx")
