"""A captioner over a GGUF file that lies beside its recipe."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("torch")
pytest.importorskip("transformers")

from capsmith.data.manifest import Manifest, Photo
from capsmith.data.photos import PhotoBytes
from capsmith.data.rows import CaptionLine, Place
from capsmith.errors import CheckpointError
from capsmith.models.gguf_files import load_gguf
from capsmith.models.policies import finished
from capsmith.training.assembly import assemble
from capsmith.training.config import Recipe, read_recipe
from capsmith.training.dry_run import dry_run
from tests.gguf_models import tokens, write_gguf
from tests.integration.command import ROOT

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe over SmolLM2, in a folder that is not the working one."""
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    copied = tmp_path / "flickr8k-smollm2.yaml"
    shutil.copyfile(ROOT / "recipes" / copied.name, copied)
    return read_recipe(copied)


def manifest() -> Manifest:
    place = Place(Path("captions.txt"))
    line = CaptionLine(text="A dog runs .", language="en", place=place)
    return Manifest((Photo(id="0", source=PhotoBytes(place.path), captions=(line,)),))


def test_weights_and_tokens_of_the_file_are_those_of_the_captioner(
    recipe: Recipe, tmp_path: Path
) -> None:
    path = tmp_path / "data" / NAME
    write_gguf(path)
    assembly = assemble(recipe, manifest(), base=tmp_path)
    found = finished(assembly.model).language_model.state_dict()
    expected = load_gguf(path).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    listed = tokens()
    end = listed.index("<|im_end|>")
    assert assembly.tokens.end == end
    assert assembly.tokens.never == (0, 1)
    assert assembly.description.language_model.stop_tokens == (end,)
    said = [listed[token] for token in assembly.tokens.encode("A dog runs .")]
    assert said == ["A", "Ġdog", "Ġruns"]


def test_a_dry_run_reads_the_sizes_of_the_file(recipe: Recipe, tmp_path: Path) -> None:
    write_gguf(tmp_path / "data" / NAME)
    lines = {line.split()[0]: line for line in dry_run(recipe, base=tmp_path)}
    assert lines["tokenizer"] == f"tokenizer  pretrained, {len(tokens())} tokens"
    assert "prefix 10 x 32" in lines["mapper"]


def test_without_the_file_a_dry_run_goes_on_and_training_does_not(
    recipe: Recipe, tmp_path: Path
) -> None:
    lines = {line.split()[0]: line for line in dry_run(recipe, base=tmp_path)}
    assert "is not on this disk" in lines["tokenizer"]
    assert "prefix 10 x 576" in lines["mapper"]
    with pytest.raises(CheckpointError, match="there is no such file; download it") as caught:
        assemble(recipe, manifest(), base=tmp_path)
    assert str(tmp_path / "data" / NAME) in str(caught.value)
