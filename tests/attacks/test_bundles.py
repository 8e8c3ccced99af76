"""Folders made to read, write or run what they must not: each is refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import capsmith
from capsmith.bundle import read_bundle
from capsmith.errors import BundleError
from tests.bundles import names, rewrite, toy_bundle

Attack = Callable[[Path], object]
SECRET = bytes(range(256)) * 2


def external_data(location: str) -> Attack:
    """The mapper's weight is said to lie in another file."""

    def attack(folder: Path) -> None:
        (folder.parent / "secret").write_bytes(SECRET)
        place = location.format(parent=folder.parent)
        model = onnx.load(folder / "mapper.onnx")
        [weight] = model.graph.initializer
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=place)
        (folder / "mapper.onnx").write_bytes(model.SerializeToString())
        rewrite(folder)

    return attack


def link(make: Callable[[Path, Path], object]) -> Attack:
    """A listed file is another name of a file outside, whose content is even the right one."""

    def attack(folder: Path) -> None:
        outside = folder.parent / "outside"
        (folder / "tokenizer.json").rename(outside)
        make(outside, folder / "tokenizer.json")

    return attack


def symlinked_external_data(folder: Path) -> None:
    external_data("mapper.onnx.data")(folder)
    (folder / "mapper.onnx.data").symlink_to(folder.parent / "secret")
    rewrite(folder, lambda d: d["files"].update({"mapper.onnx.data": listed(SECRET)}))


def unknown_domain(folder: Path) -> None:
    model = onnx.load(folder / "mapper.onnx")
    model.graph.node[0].domain = "ai.onnx.contrib"
    model.graph.node[0].op_type = "PyOp"
    (folder / "mapper.onnx").write_bytes(model.SerializeToString())
    rewrite(folder)


def wrong_hash(folder: Path) -> None:
    rewrite(folder, lambda d: d["files"]["decoder.onnx"].update(sha256="0" * 64))


def extra_file(folder: Path) -> None:
    (folder / "__init__.py").write_bytes(b"raise SystemExit\n")


def extra_folder(folder: Path) -> None:
    (folder / "code").mkdir()


def adds(name: str, data: bytes) -> Attack:
    """A file that is listed with its right hash, and that no bundle has."""

    def attack(folder: Path) -> None:
        (folder / name).write_bytes(data)
        rewrite(folder, lambda d: d["files"].update({name: listed(data)}))

    return attack


def lists(name: str) -> Attack:
    """A name that leads out of the folder."""

    def attack(folder: Path) -> None:
        (folder.parent / "secret").write_bytes(SECRET)
        rewrite(folder, lambda d: d["files"].update({name: listed(SECRET)}))

    return attack


def huge_description(folder: Path) -> None:
    with (folder / "captioner.json").open("r+b") as file:
        file.truncate(200_000_000)


def truncated_graph(folder: Path) -> None:
    path = folder / "decoder.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    rewrite(folder)


def lacking(name: str) -> Attack:
    def attack(folder: Path) -> None:
        (folder / name).unlink()

    return attack


def unlisted(name: str) -> Attack:
    def attack(folder: Path) -> None:
        rewrite(folder, lambda d: d["files"].pop(name))
        (folder / name).unlink()

    return attack


def case_twin(folder: Path) -> None:
    (folder / "Decoder.onnx").write_bytes(b"twin")


def listed_case_twin(folder: Path) -> None:
    data = (folder / "decoder.onnx").read_bytes()
    rewrite(folder, lambda d: d["files"].update({"DECODER.onnx": listed(data)}))


def listed(data: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch ran",)


def safetensors(header: dict[str, object], data: bytes, header_bytes: int = 0) -> bytes:
    text = json.dumps(header).encode().ljust(header_bytes)
    return len(text).to_bytes(8, "little") + text + data


def tensor(start: int, end: int) -> dict[str, object]:
    return {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}


OVERLAPPING = safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12))

ATTACKS: dict[str, tuple[Attack, str]] = {
    "external data in the parent": (external_data("../secret"), "mapper.onnx"),
    "external data by absolute path": (external_data("{parent}/secret"), "mapper.onnx"),
    "external data by symlink": (symlinked_external_data, "symbolic link"),
    "symlink": (link(lambda outside, name: name.symlink_to(outside)), "symbolic link"),
    "hard link": (link(os.link), "hard link"),
    "unknown operator domain": (unknown_domain, "ai.onnx.contrib"),
    "wrong hash": (wrong_hash, "SHA-256"),
    "extra file": (extra_file, "__init__.py"),
    "extra folder": (extra_folder, "not a plain file"),
    "pickle named safetensors": (
        adds("model.safetensors", pickle.dumps(Payload())),
        "model.safetensors",
    ),
    "overlapping offsets": (adds("model.safetensors", OVERLAPPING), "model.safetensors"),
    "200 MB header": (huge_description, "larger than"),
    "truncated ONNX": (truncated_graph, "decoder.onnx"),
    "missing tokenizer": (lacking("tokenizer.json"), "is missing"),
    "unlisted tokenizer": (unlisted("tokenizer.json"), "does not list tokenizer.json"),
    "zip-slip": (lists("../secret"), "../secret"),
    "zip-slip with backslash": (lists("..\\\\secret"), "secret"),
    "absolute name": (lists("/etc/passwd"), "/etc/passwd"),
    "the folder itself": (lists("."), "'.'"),
    "case twin": (case_twin, "Decoder.onnx"),
    "listed case twin": (listed_case_twin, "DECODER.onnx"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_folders_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack, said = ATTACKS[name]
    folder = toy_bundle(tmp_path / "toy").folder
    attack(folder)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError) as caught:
        capsmith.load(folder, threads=1)
    message = str(caught.value)
    assert said in message
    assert str(folder) in message
    assert "\n" not in message
    assert "ran" not in names(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_hang_the_loader(tmp_path: Path) -> None:
    folder = toy_bundle(tmp_path / "toy").folder
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    with pytest.raises(BundleError, match="not a plain file"):
        capsmith.load(folder, threads=1)


def test_a_graph_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = toy_bundle(tmp_path / "toy").folder
    encoder = (folder / "encoder.onnx").read_bytes()
    for name in ("mapper.onnx", "decoder.onnx"):
        right = (folder / name).read_bytes()
        (folder / name).write_bytes(encoder)
        rewrite(folder)
        with pytest.raises(BundleError, match=name):
            capsmith.load(folder, threads=1)
        (folder / name).write_bytes(right)


def test_a_graph_that_lies_about_its_shape_is_refused(tmp_path: Path) -> None:
    folder = toy_bundle(tmp_path / "toy").folder
    model = onnx.load(folder / "mapper.onnx")
    [value] = model.graph.output
    model.graph.node[0].output[0] = "inner"
    model.graph.node.append(helper.make_node("Concat", ["inner", "inner"], ["prefix"], axis=1))
    value.type.tensor_type.shape.dim[1].dim_param = "any"
    (folder / "mapper.onnx").write_bytes(model.SerializeToString())
    rewrite(folder)
    captioner = capsmith.load(folder, threads=1)
    with pytest.raises(BundleError, match=r"mapper\.onnx: gives"):
        captioner.caption_features(np.zeros((1, 4, 8), np.float32))


def test_one_flipped_byte_in_any_file_is_seen(tmp_path: Path) -> None:
    folder = toy_bundle(tmp_path / "toy").folder
    refused = tried = 0
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for place in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
            flipped = bytearray(data)
            flipped[place] ^= 1
            path.write_bytes(flipped)
            tried += 1
            with pytest.raises(BundleError):
                capsmith.load(folder, threads=1)
            refused += 1
        path.write_bytes(data)
    assert (refused, tried) == (28, 28)
    assert capsmith.load(folder, threads=1).bundle.name == "toy"


def test_any_flipped_byte_of_the_description_is_seen(tmp_path: Path) -> None:
    folder = toy_bundle(tmp_path / "toy").folder
    path = folder / "captioner.json"
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(BundleError):
            read_bundle(folder)
