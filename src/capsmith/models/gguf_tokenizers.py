"""Tokenizers out of GGUF files: byte-level BPE as SmolLM has it."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from capsmith.models.failures import first_sentence
from capsmith.models.gguf_files import GGUFFile

_KIND, _SPLIT = "gpt2", "smollm"
# Kinds of tokens in a file (`gguf.TokenType`).
_CONTROL, _USER_DEFINED = 3, 4


def load_gguf_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """The tokenizer in a file: digits apart, then GPT-2's split into words, bytes and merges.

    Its control tokens are special. Raises `CheckpointError` for a tokenizer of another kind.
    """
    file = GGUFFile(path)
    kind = file.text("tokenizer.ggml.model")
    split = file.text("tokenizer.ggml.pre") if file.has("tokenizer.ggml.pre") else "none"
    if (kind, split) != (_KIND, _SPLIT):
        raise file.refused(
            f"a tokenizer of the kind {kind} with the split {split}", f"{_KIND} with {_SPLIT}"
        )
    tokens = file.entries("tokenizer.ggml.tokens")
    tokenizer = tokenizers.Tokenizer(_merging(file, tokens))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = file.entries("tokenizer.ggml.token_type")
    if len(kinds) != len(tokens):
        raise file.unreadable(f"{len(tokens)} tokens, but kinds of {len(kinds)}")
    for token, its_kind in zip(tokens, kinds, strict=True):
        if its_kind == _CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif its_kind == _USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False)])
    return tokenizer


def _merging(file: GGUFFile, tokens: list[str]) -> models.BPE:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise file.unreadable("two tokens are the same")
    merges = [tuple(merge.split(" ")) for merge in file.entries("tokenizer.ggml.merges")]
    try:
        return models.BPE(vocab=vocabulary, merges=merges)
    except Exception as error:  # `tokenizers` raises bare Exception
        raise file.unreadable(f"tokenizer.ggml.merges: {first_sentence(error)}") from None
