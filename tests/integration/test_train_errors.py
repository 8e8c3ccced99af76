"""`capsmith train` on bad input: one clear line, the documented status, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch

import capsmith
from capsmith.cli.app import run as command_line
from capsmith.data.embed import BundleEncoder, embed
from capsmith.data.sources import DataSource, read_data
from tests import runs
from tests.integration.command import capsmith as run_command

Fails = Callable[..., str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    runs.write_data(tmp_path)
    return tmp_path


@pytest.fixture
def fails(data: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    def _fails(status: int, *options: str, **sections: Any) -> str:
        """The one line that training a changed recipe complains with."""
        path = runs.write_recipe(data, **sections)
        assert command_line(["train", str(path), "-o", str(data / "run"), *options]) == status
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert not (data / "run" / "best").exists()
        assert not list(data.rglob("*.tmp"))
        return lines[0]

    return _fails


def test_a_missing_photo(data: Path, fails: Fails) -> None:
    (data / "03.jpg").unlink()
    line = fails(1)
    assert "captions.csv:8: there is no photo 03.jpg" in line
    assert not (data / "run").exists()


def test_a_wrong_column(data: Path, fails: Fails) -> None:
    source = {"path": "captions.csv", "format": "csv", "columns": {"caption": "text"}}
    line = fails(1, data={"sources": [source]})
    assert "text" in line
    assert "captions.csv" in line
    assert not (data / "run").exists()


def test_two_files_of_captions_in_a_folder(data: Path, fails: Fails) -> None:
    shutil.copy(data / "captions.csv", data / "other.csv")
    line = fails(1, data={"sources": [{"path": "."}]})
    assert "captions.csv" in line
    assert "other.csv" in line
    assert not (data / "run").exists()


def test_no_photo_to_validate_on(data: Path, fails: Fails) -> None:
    source = {"path": "captions.csv", "split": "train"}
    line = fails(1, data={"sources": [source]})
    assert "its split val is empty; name a list" in line
    assert not (data / "run").exists()


def test_photos_that_cross_splits(data: Path, fails: Fails) -> None:
    with (data / "val.txt").open("a") as file:
        file.write("00.jpg\n")
    line = fails(1)
    assert "photo 00.jpg is in train and in val" in line
    assert not (data / "run").exists()


def test_a_wrong_recipe_and_option(data: Path, fails: Fails) -> None:
    assert "unknown field training.'bach'" in fails(2, "--set", "training.bach=3")
    assert not (data / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to train in fp16 on")
def test_fp16_without_a_gpu(data: Path, fails: Fails) -> None:
    line = fails(2, training={"precision": "fp16"})
    assert "training.precision: fp16 needs a GPU; use bf16 or float32" in line
    assert not (data / "run" / "recipe.json").exists()


def test_a_prefix_longer_than_the_language_model(data: Path, fails: Fails) -> None:
    line = fails(2, mapper={"kind": "mlp", "rows": 24, "hidden": 8})
    assert "a prefix of 24 rows leaves no room for a caption" in line
    assert not (data / "run").exists()


@pytest.mark.parametrize("kind", ["gpt2", "cross-attention"])
def test_a_caption_longer_than_the_language_model(data: Path, fails: Fails, kind: str) -> None:
    with (data / "captions.csv").open("a") as file:
        file.write(f"00.jpg,{' '.join(['a cat'] * 12)}\n")
    sizes = {"kind": kind, "width": 16, "layers": 1, "heads": 2, "positions": 24}
    line = fails(1, language_model=sizes)
    assert "captions.csv:34: a caption of 24 tokens, and the language model has room for" in line
    assert "data.max_tokens" in line


def test_a_store_of_another_encoder(data: Path, fails: Fails) -> None:
    manifest = read_data([DataSource(path="captions.csv")], base=data)
    encoder = BundleEncoder(capsmith.load())
    embed(manifest.photos[:4], data / "store", encoder)
    line = fails(1, features={"store": "store"})
    assert "has no photo" in line
    description = data / "store" / "store.json"
    description.write_text(description.read_text().replace(encoder.facts.name, "another"))
    line = fails(1, features={"store": "store"})
    assert f"{data / 'store'}" in line
    assert "another" in line


def test_a_loss_that_is_no_number(data: Path, fails: Fails) -> None:
    line = fails(1, training={"learning_rate": 1e30}, validation={"every": 100})
    assert "at batch 1 of stage captions (photos " in line
    assert ".jpg" in line
    assert "lower training.learning_rate" in line


def test_a_broken_photo_that_a_worker_reads(data: Path, fails: Fails) -> None:
    for name in runs.names()[: runs.TRAIN]:
        (data / name).write_bytes(b"no photo")
    line = fails(1, features={"source": "pixels", "workers": 1})
    assert ".jpg" in line
    assert "Traceback" not in line


@pytest.mark.slow
@pytest.mark.parametrize("size", ["300k", "6m"])
def test_a_full_disk(data: Path, size: str) -> None:
    """With little room features do not fit, with more of it checkpoints do not."""
    disk = data / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a small disk")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        pytest.skip(f"no small disk here: {made.stderr.decode().strip()}")
    wide = {"kind": "mlp", "rows": 2, "hidden": 512}
    try:
        recipe = runs.write_recipe(data, mapper=wide, validation={"checkpoint_every": 1})
        done = run_command("train", recipe, "-o", disk / "run")
        assert done.status == 1
        assert len(done.complaints) == 1, done.complaints
        assert str(disk) in done.complaints[0] or "No space left" in done.complaints[0]
        assert not list((disk / "run").glob("checkpoints/captions-*"))
        assert not (disk / "run" / "best").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_run_needs_a_folder_of_its_own(fails: Fails, data: Path) -> None:
    (data / "run").mkdir()
    (data / "run" / "notes.txt").write_text("mine")
    told = fails(2)
    assert f"{data / 'run'}: is no run of capsmith train and holds notes.txt" in told
    assert [path.name for path in (data / "run").iterdir()] == ["notes.txt"]


def test_a_language_to_reward_that_has_no_captions(fails: Fails, data: Path) -> None:
    line = fails(2, self_critical={"steps": 1, "languages": {"de": 2}})
    assert "self_critical.languages: no captions are in de; the data has en" in line
    assert not (data / "run" / "recipe.json").exists()
