"""A tokenizer of one's own: byte-level BPE (Sennrich et al. 2016) trained on captions."""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

START, END = "<start>", "<end>"


def train_bpe(
    captions: Iterable[str], *, vocab_size: int, lowercase: bool = True
) -> tokenizers.Tokenizer:
    """A tokenizer of at most `vocab_size` tokens: `START` is 0, `END` is 1, then bytes and merges.

    Every text can be spelled, whatever the captions held. A caption begins as if after a space, so
    that a word is the same token wherever it stands. The same captions give the same tokenizer.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    forms = [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(forms)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer
